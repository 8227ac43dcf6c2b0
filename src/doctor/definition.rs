//! The definition of a table as `SHOW CREATE TABLE` prints it. A repair changes single words of it,
//! so that a column or a key keeps everything else: collation, default, comment.

use crate::db::quoted;

/// The lines of a definition.
#[derive(Default)]
pub struct Definition(Vec<Words>);

/// The words of a line. A text in quotes or parentheses is one word, as is a comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

/// A constraint of the table: a foreign key, or a condition that the server checks for each row.
#[derive(Debug, PartialEq, Eq)]
pub enum Constraint<'a> {
    ForeignKey { name: &'a str, columns: &'a str, parent: &'a str },
    Condition { name: &'a str, text: &'a str },
}

impl Definition {
    pub fn new(text: &str) -> Self {
        Self(text.lines().map(|line| Words::new(line.trim().trim_end_matches(','))).collect())
    }

    /// The words of a column, without its name.
    pub fn column(&self, name: &str) -> Option<Words> {
        let line = self.0.iter().find(|line| line.0.first().is_some_and(|word| is(word, name)))?;
        Some(Words(line.0[1..].to_vec()))
    }

    /// The words of a key, beginning with its list of columns.
    pub fn key(&self, name: &str) -> Option<Words> {
        self.0.iter().find_map(|Words(line)| {
            let at = line.iter().position(|word| word == "KEY")?;
            let rest = match name {
                "PRIMARY" => line[0] == "PRIMARY",
                _ => at < 2 && line.get(at + 1).is_some_and(|word| is(word, name)),
            };
            rest.then(|| Words(line[at + usize::from(name != "PRIMARY") + 1..].to_vec()))
        })
    }

    fn keys(&self) -> impl Iterator<Item = &Words> {
        self.0.iter().filter(|line| line.has("KEY"))
    }

    /// Whether any key contains a column.
    pub fn has_key_on(&self, column: &str) -> bool {
        self.keys().any(|Words(line)| line.iter().any(|word| names(word, column)))
    }

    /// Whether a spatial key contains a column.
    pub fn has_spatial_key_on(&self, column: &str) -> bool {
        let mut keys =
            self.0.iter().filter(|Words(line)| line.starts_with(&["SPATIAL".to_owned()]));
        keys.any(|Words(line)| line.iter().any(|word| names(word, column)))
    }

    /// Whether any key begins with a column.
    pub fn has_key_from(&self, column: &str) -> bool {
        let start = format!("({}", quoted(column)).to_lowercase();
        self.keys()
            .any(|Words(line)| line.iter().any(|word| word.to_lowercase().starts_with(&start)))
    }

    /// The foreign keys and conditions of the table.
    pub fn constraints(&self) -> impl Iterator<Item = Constraint<'_>> {
        self.0.iter().filter_map(|Words(line)| {
            let words: Vec<_> = line.iter().map(String::as_str).collect();
            match words[..] {
                ["CONSTRAINT", name, "FOREIGN", "KEY", columns, "REFERENCES", parent, ..] => {
                    Some(Constraint::ForeignKey { name, columns, parent })
                }
                ["CONSTRAINT", name, "CHECK", text, ..] => {
                    Some(Constraint::Condition { name, text })
                }
                _ => None,
            }
        })
    }

    /// The columns that say when a row's version began and ended, if the table shows them.
    pub fn period(&self) -> Option<Vec<String>> {
        let line = self.0.iter().find(|Words(line)| line.starts_with(&["PERIOD".to_owned()]))?;
        let columns = line.0.last()?.trim_matches(['(', ')']).split(", ");
        Some(columns.map(|name| name[1..name.len() - 1].replace("``", "`")).collect())
    }

    /// Whether a line contains these words, one after the other.
    pub fn says(&self, words: &[&str]) -> bool {
        self.0.iter().any(|line| line.find(words).is_some())
    }
}

/// Whether a word of a definition is this name, in any letter case.
fn is(word: &str, name: &str) -> bool {
    word.to_lowercase() == quoted(name).to_lowercase()
}

/// Whether a word of a definition, such as a list of columns, contains this name.
pub fn names(word: &str, name: &str) -> bool {
    word.to_lowercase().contains(&quoted(name).to_lowercase())
}

/// Removes the lengths of prefixes from a list of columns.
pub fn whole_columns(columns: &str) -> String {
    let mut whole = String::new();
    let (mut is_quoted, mut is_length) = (false, false);
    for c in columns.chars() {
        is_length |= c == '(' && !is_quoted && whole.ends_with('`');
        if !is_length {
            is_quoted ^= c == '`';
            whole.push(c);
        }
        is_length &= c != ')';
    }
    whole
}

impl Words {
    fn new(line: &str) -> Self {
        let mut words = Vec::new();
        let (mut word, mut depth, mut quote) = (String::new(), 0_u32, None);
        let mut characters = line.chars().peekable();
        while let Some(c) = characters.next() {
            if c == ' ' && depth == 0 && quote.is_none() {
                words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                continue;
            }
            word.push(c);
            match (quote, c) {
                (Some('\'' | '"'), '\\') => word.extend(characters.next()),
                (Some(open), _) if c == open => quote = None,
                (None, '\'' | '"' | '`') => quote = Some(c),
                (None, '(') => depth += 1,
                (None, '/') if characters.peek() == Some(&'*') => depth += 1,
                (None, ')') => depth = depth.saturating_sub(1),
                (None, '*') if characters.peek() == Some(&'/') => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        words.extend((!word.is_empty()).then_some(word));
        Self(words)
    }

    /// The position of these words, one after the other; `*` matches any word.
    fn find(&self, words: &[&str]) -> Option<usize> {
        let mut parts = self.0.windows(words.len());
        parts.position(|part| {
            part.iter().zip(words).all(|(found, word)| *word == "*" || found == word)
        })
    }

    /// Removes these words. Returns them.
    fn take(&mut self, words: &[&str]) -> Option<String> {
        let at = self.find(words)?;
        Some(self.0.drain(at..at + words.len()).collect::<Vec<_>>().join(" "))
    }

    /// The first word: the type of a column, or the list of a key's columns.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    pub fn has(&self, word: &str) -> bool {
        self.find(&[word]).is_some()
    }

    /// All words except the first, each after a space.
    pub fn rest(&self) -> String {
        self.0.iter().skip(1).fold(String::new(), |text, word| text + " " + word)
    }

    /// Whether a comment that the server executes contains this word.
    pub fn has_in_comment(&self, word: &str) -> bool {
        self.0.iter().any(|comment| comment.starts_with("/*") && comment.contains(word))
    }

    /// A copy without these words, one after the other; `*` matches any word.
    pub fn without(mut self, words: &[&str]) -> Self {
        self.take(words);
        self
    }

    /// A column that may be NULL.
    pub fn nullable(mut self) -> String {
        if let Some(at) = self.find(&["NOT", "NULL"]) {
            self.0.remove(at);
        }
        self.0.join(" ")
    }

    /// An integer column that counts up.
    pub fn counting(mut self) -> String {
        self.take(&["DEFAULT", "*"]);
        self.take(&["NOT", "NULL"]);
        let unsigned = if self.take(&["unsigned"]).is_some() { " unsigned" } else { "" };
        let zerofill = if self.take(&["zerofill"]).is_some() { " zerofill" } else { "" };
        let first = self.first();
        format!("{first}{unsigned}{zerofill} NOT NULL AUTO_INCREMENT{}", self.rest())
    }

    /// A text column of the width of an id, NOT NULL. `charset` replaces its character set and
    /// collation. Without `charset`, a text column keeps them, and any other column gets the
    /// table's.
    pub fn into_text(self, charset: Option<&str>) -> String {
        let mut words = self.without(&["CHECK", "*"]);
        words.take(&["ON", "UPDATE", "*"]);
        let default = words.take(&["DEFAULT", "*"]).filter(|default| default != "DEFAULT NULL");
        // The default of a text can be an expression, in parentheses.
        let default = default.map(|default| match default.split_once(' ') {
            Some((word, clock)) if clock.to_lowercase().starts_with("current_timestamp") => {
                format!("{word} ({clock})")
            }
            _ => default,
        });
        for gone in [&["NOT", "NULL"][..], &["NULL"], &["AUTO_INCREMENT"], &["unsigned"]] {
            words.take(gone);
        }
        words.take(&["zerofill"]);
        let own = [words.take(&["CHARACTER", "SET", "*"]), words.take(&["COLLATE", "*"])];
        let charset = match charset {
            Some(charset) => charset.to_owned(),
            None => own.into_iter().flatten().collect::<Vec<_>>().join(" "),
        };
        let parts = ["VARCHAR(255)", &charset, "NOT NULL", default.as_deref().unwrap_or("")];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(" ") + &words.rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(line: &str) -> Words {
        Definition::new(&format!("  `x` {line},")).column("X").unwrap()
    }

    #[test]
    fn a_column_becomes_text_and_keeps_its_attributes() {
        let comment = r"COMMENT 'it''s \'NOT NULL\', (b'";
        for (before, charset, after) in [
            ("datetime DEFAULT NULL", None, "VARCHAR(255) NOT NULL"),
            (
                "varchar(61) CHARACTER SET latin1 COLLATE latin1_bin DEFAULT 'NULL'",
                None,
                "VARCHAR(255) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL DEFAULT 'NULL'",
            ),
            (
                "text COLLATE utf16_bin NOT NULL",
                Some("CHARACTER SET utf8mb4"),
                "VARCHAR(255) CHARACTER SET utf8mb4 NOT NULL",
            ),
            (
                "timestamp(3) NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)",
                None,
                "VARCHAR(255) NOT NULL DEFAULT (CURRENT_TIMESTAMP(3))",
            ),
            (
                "bigint(20) unsigned zerofill NOT NULL DEFAULT 0 CHECK (`x` > 1)",
                None,
                "VARCHAR(255) NOT NULL DEFAULT 0",
            ),
            (
                "varchar(9) DEFAULT (_utf8mb4'a b') /*!80023 INVISIBLE */",
                None,
                "VARCHAR(255) NOT NULL DEFAULT (_utf8mb4'a b') /*!80023 INVISIBLE */",
            ),
        ] {
            assert_eq!(column(before).into_text(charset), after);
            let commented = column(&format!("{before} {comment}")).into_text(charset);
            assert_eq!(commented, format!("{after} {comment}"));
        }
        let text = "text COLLATE x NOT NULL COMMENT 'NOT NULL'";
        assert_eq!(column(text).nullable(), "text COLLATE x NULL COMMENT 'NOT NULL'");
        let id = "int(10) unsigned NOT NULL DEFAULT 0 COMMENT 'n'";
        let counting = "int(10) unsigned NOT NULL AUTO_INCREMENT COMMENT 'n'";
        assert_eq!(column(id).counting(), counting);
    }

    #[test]
    fn keys_and_constraints_are_found_by_name() {
        let table = Definition::new(
            "CREATE TABLE `t` (\n  `KEY` int,\n  PRIMARY KEY (`a`),\n  UNIQUE KEY `u``(3)` (`a`(191),`b``(2)`(5),`c`) COMMENT 'x y',\n  \
             KEY `f` ((lower(`a`))),\n  PERIOD FOR SYSTEM_TIME (`from`, `to``o`),\n  \
             CONSTRAINT `fk` FOREIGN KEY (`a`) REFERENCES `p` (`b`) ON DELETE CASCADE,\n  CONSTRAINT `c` CHECK (`b` > 1)\n) ENGINE=x",
        );
        assert_eq!(table.key("PRIMARY").unwrap().first(), "(`a`)");
        let unique = table.key("U`(3)").unwrap();
        assert_eq!(unique.rest(), " COMMENT 'x y'");
        assert_eq!(whole_columns(unique.first()), "(`a`,`b``(2)`,`c`)");
        assert_eq!(whole_columns(table.key("f").unwrap().first()), "((lower(`a`)))");
        assert_eq!(table.key("x"), None);
        assert!(table.has_key_on("C") && !table.has_key_on("d"));
        assert!(table.has_key_from("A") && !table.has_key_from("c"));
        assert_eq!(table.period().unwrap(), ["from", "to`o"]);
        assert!(table.says(&["FOR", "SYSTEM_TIME"]) && !table.says(&["FOR", "PERIOD"]));
        let fk = Constraint::ForeignKey { name: "`fk`", columns: "(`a`)", parent: "`p`" };
        let check = Constraint::Condition { name: "`c`", text: "(`b` > 1)" };
        assert_eq!(table.constraints().collect::<Vec<_>>(), [fk, check]);
    }
}
