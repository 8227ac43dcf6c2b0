//! Statements from `sql/`, and packets of several statements.

use std::sync::LazyLock;

/// A statement from `sql/`, ready for its values.
///
/// Statements are sent as text, so that several fit in one packet and one round trip. Every value
/// is written as a number, in hexadecimal, or, if it has only letters, digits and a few harmless
/// signs, in quotes. So the server cannot read a caller's text as SQL in any SQL mode.
#[derive(Clone, Debug, Default)]
pub struct Statement(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Sql(String),
    Parameter(String),
    /// Written once for every row, with this separator between them; or only for rows that have
    /// this value.
    Each(String, Option<String>, Vec<Piece>),
}

/// A value in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text, compared by the column's collation.
    Text(&'a str),
    /// Bytes, compared exactly.
    Bytes(&'a [u8]),
    Number(u64),
    Signed(i64),
    List(&'a [Value<'a>]),
    /// Values that are compared together, in parentheses.
    Tuple(&'a [Value<'a>]),
    Null,
}

/// The values of a statement, by the names of its parameters.
pub type Values<'a> = [(&'static str, Value<'a>)];

impl Statement {
    /// Parses a file of `sql/`: drops comments, replaces `{name}` by a quoted identifier, and reads
    /// `:name` as a parameter. Text between `/*each X*/` and `/*end*/` is written once for every
    /// row of values, with the separator X; after `/*each-with name*/`, only for rows whose `:name`
    /// is not NULL.
    pub fn new(file: &str, identifiers: &[(&str, &str)]) -> Self {
        let code = file.lines().filter(|line| !line.starts_with("--"));
        let sql = code.map(str::trim).collect::<Vec<_>>().join(" ");
        let mut pieces = Vec::new();
        let mut rest = sql.as_str();
        while let Some((before, after)) = rest.split_once("/*each") {
            pieces.extend(read_pieces(before, identifiers));
            let (separator, after) = after.split_once("*/").unwrap_or(("", after));
            let (each, after) = after.split_once("/*end*/").unwrap_or((after, ""));
            let needed = separator.strip_prefix("-with ").map(str::to_owned);
            let separator = if needed.is_some() { "" } else { separator };
            let each = read_pieces(each, identifiers);
            pieces.push(Piece::Each(separator.to_owned(), needed, each));
            rest = after;
        }
        pieces.extend(read_pieces(rest, identifiers));
        Self(pieces)
    }

    /// Appends the statement to a packet, with one row of values. Panics if a value is missing,
    /// which is a bug that the first use of the statement reveals.
    pub fn write(&self, packet: &mut Packet, values: &Values) {
        self.write_rows(packet, &[values]);
    }

    /// Like [`Statement::write`], with one or more rows of values. The parts that are not repeated
    /// take the values of the first row.
    pub fn write_rows<'a>(&self, packet: &mut Packet, rows: &[impl AsRef<Values<'a>>]) {
        if packet.statements > 0 {
            packet.text.push(';');
        }
        packet.statements += 1;
        for piece in &self.0 {
            match piece {
                Piece::Each(separator, needed, pieces) => {
                    let has = |row: &Values, name: &String| {
                        row.iter().any(|(given, value)| given == name && *value != Value::Null)
                    };
                    let rows = rows.iter().map(AsRef::as_ref);
                    let rows = rows.filter(|row| needed.as_ref().is_none_or(|name| has(row, name)));
                    for (number, row) in rows.enumerate() {
                        if number > 0 {
                            packet.text.push_str(separator);
                        }
                        for piece in pieces {
                            piece.write(&mut packet.text, row);
                        }
                    }
                }
                piece => piece.write(&mut packet.text, rows[0].as_ref()),
            }
        }
    }
}

impl Piece {
    fn write(&self, text: &mut String, values: &Values) {
        match self {
            Self::Sql(sql) => text.push_str(sql),
            Self::Parameter(name) => {
                let value = values.iter().find(|(given, _)| given == name);
                let (_, value) = value.unwrap_or_else(|| panic!("no value for :{name}"));
                value.write(text);
            }
            Self::Each(..) => unreachable!("repeated parts are not nested"),
        }
    }
}

fn read_pieces(sql: &str, identifiers: &[(&str, &str)]) -> Vec<Piece> {
    let named = |sql: &str| {
        let mut parts = sql.split('{');
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let known = part.split_once('}').and_then(|(name, rest)| {
                let known = identifiers.iter().find(|(known, _)| *known == name);
                known.map(|(_, identifier)| quoted(identifier) + rest)
            });
            named += &known.unwrap_or_else(|| format!("{{{part}"));
        }
        named
    };
    let mut pieces = Vec::new();
    let mut rest = sql;
    while let Some((before, after)) = split_at_parameter(rest) {
        pieces.push(Piece::Sql(named(before)));
        let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
        pieces.push(Piece::Parameter(after[..end].to_owned()));
        rest = &after[end..];
    }
    pieces.push(Piece::Sql(named(rest)));
    pieces
}

/// Quotes a name as an SQL identifier.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

/// Splits at the first `:name`. The colons of a time format are followed by something else.
fn split_at_parameter(sql: &str) -> Option<(&str, &str)> {
    sql.match_indices(':')
        .map(|(at, _)| (&sql[..at], &sql[at + 1..]))
        .find(|(_, after)| after.starts_with(is_name))
}

impl Value<'_> {
    fn write(self, sql: &mut String) {
        match self {
            Self::Text(text) if is_plain(text.as_bytes()) => sql.extend(["'", text, "'"]),
            Self::Text(text) => {
                sql.push_str("_utf8mb4 ");
                write_hex(sql, text.as_bytes());
            }
            Self::Bytes(bytes) => match str::from_utf8(bytes) {
                Ok(text) if is_plain(bytes) => sql.extend(["'", text, "'"]),
                _ => write_hex(sql, bytes),
            },
            Self::Number(number) => sql.push_str(&number.to_string()),
            Self::Signed(number) => sql.push_str(&number.to_string()),
            Self::List(values) => {
                for (number, value) in values.iter().enumerate() {
                    if number > 0 {
                        sql.push(',');
                    }
                    value.write(sql);
                }
            }
            Self::Tuple(values) => {
                sql.push('(');
                Self::List(values).write(sql);
                sql.push(')');
            }
            Self::Null => sql.push_str("NULL"),
        }
    }
}

/// Whether the server reads the same text from quotes in every SQL mode. True for most ids and all
/// leases.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b" -.:_@+".contains(byte))
}

fn write_hex(sql: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    sql.push_str("x'");
    for byte in bytes {
        sql.push(char::from(DIGITS[usize::from(byte >> 4)]));
        sql.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    sql.push('\'');
}

/// The longest packet in bytes: a batch of requests of the greatest length, whose ids are written in
/// hexadecimal. MariaDB and MySQL accept 16 MiB or more by default.
pub const PACKET_MAX_BYTES: usize = 1 << 20;

/// The longest packet at the start, and more than a batch of ids of the usual length.
pub const PACKET_LEAST_BYTES: usize = 256 << 10;

/// Statements that are sent to the database in one round trip. If one fails, the database skips the
/// rest.
#[derive(Debug, Default)]
pub struct Packet {
    text: String,
    statements: usize,
    is_guarded: bool,
}

impl Packet {
    /// A packet that a read-only server refuses with 1290 before it runs any of the statements,
    /// even a `SELECT` and even for a superuser.
    pub fn for_writable_server() -> Self {
        static GUARD: LazyLock<String> = LazyLock::new(|| {
            let mut packet = Packet::default();
            packet.push(include_str!("../../sql/connection/takes_writes.sql"));
            packet.text + ";"
        });
        Self { text: GUARD.clone(), statements: 0, is_guarded: true }
    }

    /// Whether the packet begins with a statement that fails on a read-only server. [`Packet::len`]
    /// does not count it.
    pub(super) fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// The number of statements, without the one that fails on a read-only server.
    pub fn len(&self) -> usize {
        self.statements
    }

    /// The statements, separated by semicolons.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends a statement without values, such as `COMMIT`.
    pub fn push(&mut self, sql: &str) {
        Statement::new(sql, &[]).write(self, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_form() {
        let pair = [Value::Number(7), Value::Signed(-7)];
        for (value, form) in [
            (Value::Text("a B-.:_@+9"), "'a B-.:_@+9'"),
            (Value::Text("é"), "_utf8mb4 x'c3a9'"),
            (Value::Bytes(b"a9"), "'a9'"),
            (Value::Bytes(b"a'"), "x'6127'"),
            (Value::Bytes(b"\xff"), "x'ff'"),
            (Value::List(&pair), "7,-7"),
            (Value::Tuple(&pair), "(7,-7)"),
            (Value::Null, "NULL"),
        ] {
            let mut sql = String::new();
            value.write(&mut sql);
            assert_eq!(sql, form);
        }
    }

    #[test]
    fn the_guard_of_a_packet_is_not_counted() {
        let mut packet = Packet::for_writable_server();
        assert!(packet.is_guarded() && packet.len() == 0);
        packet.push("COMMIT");
        assert_eq!(packet.len(), 1);
        assert!(
            packet.text().starts_with("SET @takes_writes") && packet.text().ends_with(";COMMIT")
        );
        assert!(!Packet::default().is_guarded());
    }

    #[test]
    fn values_cannot_be_read_as_sql() {
        let statement = Statement::new(
            "-- a :comment\nSELECT :a, '%H:%i', :b FROM {t}.{u}\n  WHERE /*each OR*/ x = :a/*end*//*each-with b*/ AND b/*end*/",
            &[("t", "{u}`:y"), ("u", "{t}")],
        );
        let mut packet = Packet::default();
        let row = |a| [("a", Value::Text(a)), ("b", Value::Null)];
        statement.write_rows(&mut packet, &[row("'; :b"), row("")]);
        packet.push("COMMIT");
        assert_eq!(
            packet.text,
            "SELECT _utf8mb4 x'273b203a62', '%H:%i', NULL FROM `{u}``:y`.`{t}` WHERE  x = _utf8mb4 x'273b203a62' OR x = '';COMMIT"
        );
    }
}
