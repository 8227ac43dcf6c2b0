//! From the text of a packet back to the files of `sql/` and the values in it: the simulated table runs
//! what the product sends to a database.

/// The name that the model gives to the lock table.
pub const TABLE: &str = "t";

/// A session, a worker's owner token and a message are numbers here. Their names in statements are `p1`,
/// `00000000000000000001` and `m1`.
pub type Session = u8;
pub type Owner = u8;
pub type Message = u8;

/// One statement, with the values that the simulated table needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stmt {
    TakesWrites,
    Start,
    Commit,
    Acquire(Vec<Claim>),
    ReleaseAnswered(Session, Owner, Message),
    Written,
    Renew(Session, Owner, Renewal),
    Release(Session, Owner),
    ReleaseSeveral(Vec<(Session, Owner)>),
    AllReleased(u64),
    /// The row's key, and its stored bytes.
    DeleteRow(Session, i64, String),
    Lock(Session),
    MayWrite,
    Read(Vec<Session>),
    CommitMessage(Session, Message, Owner),
    RecordOnRelease(Session, Message, Owner),
    ReadMessage(Vec<(Session, Message)>),
    /// An old program's statements, which have no file.
    OldRead(Session),
    /// With the key of a new row.
    OldUpsert(Session, i64),
    OldDelete(Session),
}

/// A row of `acquire.sql`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    pub key: i64,
    pub session: Session,
    pub owner: Owner,
    pub ttl_us: u64,
    pub replace: Option<Replace>,
}

/// What `acquire.sql` replaces, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Replace {
    pub stored: String,
    pub shift_us: i64,
    pub fencing_floor: u64,
}

/// The values of `renew.sql`.
#[allow(clippy::struct_field_names)] // All are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Renewal {
    pub shift_us: i64,
    pub max_hold_us: u64,
    pub max_shift_us: i64,
}

macro_rules! files {
    ($($name:literal)+) => {
        /// The statements' files, by name.
        pub const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../sql/", $name)))),+];
    };
}

files! {
    "connection/takes_writes.sql"
    "lease/acquire.sql" "lease/release_answered.sql" "lease/written.sql" "lease/renew.sql"
    "lease/release.sql" "lease/release_several.sql" "lease/all_released.sql" "lease/delete_row.sql"
    "lease/lock.sql" "lease/may_write.sql" "lease/read.sql" "message/record_on_commit.sql"
    "message/record_on_release.sql" "message/read.sql"
}

impl Stmt {
    /// The file of the statement, or the statement itself if it has none.
    pub fn file(&self) -> &'static str {
        match self {
            Self::TakesWrites => "connection/takes_writes.sql",
            Self::Start => "START TRANSACTION",
            Self::Commit => "COMMIT",
            Self::Acquire(_) => "lease/acquire.sql",
            Self::ReleaseAnswered(..) => "lease/release_answered.sql",
            Self::Written => "lease/written.sql",
            Self::Renew(..) => "lease/renew.sql",
            Self::Release(..) => "lease/release.sql",
            Self::ReleaseSeveral(_) => "lease/release_several.sql",
            Self::AllReleased(_) => "lease/all_released.sql",
            Self::DeleteRow(..) => "lease/delete_row.sql",
            Self::Lock(_) => "lease/lock.sql",
            Self::MayWrite => "lease/may_write.sql",
            Self::Read(_) => "lease/read.sql",
            Self::CommitMessage(..) => "message/record_on_commit.sql",
            Self::RecordOnRelease(..) => "message/record_on_release.sql",
            Self::ReadMessage(_) => "message/read.sql",
            Self::OldRead(_) => "SELECT timestamp ...",
            Self::OldUpsert(..) => "INSERT ... ON DUPLICATE KEY UPDATE timestamp = NOW()",
            Self::OldDelete(_) => "DELETE ...",
        }
    }

    /// Whether it changes nothing and reads nothing of the tables, so that it runs with the next statement.
    pub fn is_prelude(&self) -> bool {
        matches!(self, Self::TakesWrites | Self::Start | Self::Written)
    }

    /// Whether a server that takes no writes refuses it.
    pub fn writes(&self) -> bool {
        !matches!(
            self,
            Self::TakesWrites
                | Self::Start
                | Self::Written
                | Self::Commit
                | Self::AllReleased(_)
                | Self::Read(_)
                | Self::ReadMessage(_)
                | Self::OldRead(_)
        )
    }
}

/// The statements of a packet.
pub fn parse(packet: &str) -> Vec<Stmt> {
    // No value contains a semicolon: those that could are written in hexadecimal.
    packet.split(';').map(parse_one).collect()
}

fn parse_one(text: &str) -> Stmt {
    match text {
        "START TRANSACTION" => return Stmt::Start,
        "COMMIT" => return Stmt::Commit,
        _ => {}
    }
    let found = FILES.iter().find_map(|(name, file)| Some((*name, capture(file, text)?)));
    let (name, values) = found.unwrap_or_else(|| panic!("no file of sql/ is this: {text}"));
    build(name, &Values(values))
}

fn build(name: &str, values: &Values) -> Stmt {
    let session = || values.session("id_prospect");
    let owner = || values.owner("owner_token");
    let message = || values.message("message_id");
    match name {
        "connection/takes_writes.sql" => Stmt::TakesWrites,
        "lease/acquire.sql" => Stmt::Acquire(claims(values)),
        "lease/release_answered.sql" => Stmt::ReleaseAnswered(session(), owner(), message()),
        "lease/written.sql" => Stmt::Written,
        "lease/renew.sql" => {
            let shift_us = values.number("shift_us");
            let max_hold_us = values.number("max_hold_us").cast_unsigned();
            let max_shift_us = values.number("max_shift_us");
            Stmt::Renew(session(), owner(), Renewal { shift_us, max_hold_us, max_shift_us })
        }
        "lease/release.sql" => Stmt::Release(session(), owner()),
        "lease/release_several.sql" => {
            let lists = values.all("owners");
            let words = lists.iter().flat_map(|list| list.split(['(', ')', ',']));
            let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
            let pair = |pair: &[&str]| (digits(pair[0]), digits(pair[1]));
            Stmt::ReleaseSeveral(words.chunks(2).map(pair).collect())
        }
        "lease/all_released.sql" => Stmt::AllReleased(values.number("rows").cast_unsigned()),
        "lease/delete_row.sql" => {
            let (key, stored) = (values.number("key"), values.first("stored"));
            Stmt::DeleteRow(session(), key, stored.to_owned())
        }
        "lease/lock.sql" => Stmt::Lock(session()),
        "lease/may_write.sql" => Stmt::MayWrite,
        "lease/read.sql" => {
            let lists = values.all("id_prospects");
            Stmt::Read(lists.iter().flat_map(|list| list.split(',')).map(digits).collect())
        }
        "message/record_on_commit.sql" => Stmt::CommitMessage(session(), message(), owner()),
        "message/record_on_release.sql" => Stmt::RecordOnRelease(session(), message(), owner()),
        "message/read.sql" => {
            let sessions = values.all("id_prospect").into_iter().map(digits);
            Stmt::ReadMessage(
                sessions.zip(values.all("message_id").into_iter().map(digits)).collect(),
            )
        }
        _ => unreachable!("a statement without a meaning here: {name}"),
    }
}

fn claims(values: &Values) -> Vec<Claim> {
    let keys = values.all("key");
    let claims = values.all("claim");
    let rows = keys.len() / 2;
    let mut stored = values.all("stored").into_iter();
    let replaced = values.0.iter().skip_while(|(name, _)| name != "mark").skip(1);
    let replaced: Vec<_> = replaced.cloned().collect();
    // One group of values for each row that is replaced, in the order of the rows.
    let groups: Vec<_> = replaced.chunks(6).map(|group| Values(group.to_vec())).collect();
    assert_eq!(stored.by_ref().count(), groups.len());
    (0..rows)
        .map(|at| {
            let session = digits(values.all("id_prospect")[at]);
            let claim = claims[at];
            let group = groups.iter().find(|group| group.session("id_prospect") == session);
            let replace = group.map(|group| Replace {
                stored: group.first("stored").to_owned(),
                shift_us: group.number("shift_us"),
                fencing_floor: group.number("fencing_floor").cast_unsigned(),
            });
            Claim {
                key: keys[at].parse().expect("a key is a number"),
                session,
                owner: digits(&claim[42..]),
                ttl_us: claim[35..42].parse::<u64>().expect("a ttl is a number") * 1_000,
                replace,
            }
        })
        .collect()
}

/// The number in a name such as `p1`.
fn digits<T: std::str::FromStr>(name: &str) -> T {
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    number.parse().ok().unwrap_or_else(|| panic!("{name:?} is not a name of the model"))
}

/// Values by their names, in the order of the text.
struct Values(Vec<(String, String)>);

impl Values {
    fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str()).collect()
    }

    fn first(&self, name: &str) -> &str {
        self.all(name)[0]
    }

    fn number(&self, name: &str) -> i64 {
        self.first(name).parse().expect("a number")
    }

    fn session(&self, name: &str) -> Session {
        digits(self.first(name))
    }

    fn owner(&self, name: &str) -> Owner {
        digits(self.first(name))
    }

    fn message(&self, name: &str) -> Message {
        digits(self.first(name))
    }
}

/// The values in a text that was made from this file; `None` if it was made from another.
fn capture(file: &str, text: &str) -> Option<Vec<(String, String)>> {
    let lines = file.lines().filter(|line| !line.starts_with("--"));
    let template = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    let names = [("{table}", TABLE), ("{key}", "id_sessionX"), ("{session_key}", "uniq_session")];
    let template = names.iter().fold(template, |template, (name, identifier)| {
        template.replace(name, &format!("`{identifier}`"))
    });
    let mut values = Vec::new();
    let mut text = text;
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once("/*each") {
        text = capture_plain(before, text, &mut values)?;
        let (separator, after) = after.split_once("*/")?;
        let (repeated, after) = after.split_once("/*end*/")?;
        let separator = if separator.starts_with("-with") { "" } else { separator };
        while let Some(next) = capture_plain(repeated, text, &mut values) {
            text = next;
            match text.strip_prefix(separator) {
                Some(next) => text = next,
                None => break,
            }
        }
        rest = after;
    }
    text = capture_plain(rest, text, &mut values)?;
    text.is_empty().then_some(values)
}

/// What follows after a part of a template; its values are added. On a mismatch nothing is added.
fn capture_plain<'t>(
    template: &str,
    text: &'t str,
    values: &mut Vec<(String, String)>,
) -> Option<&'t str> {
    let known = values.len();
    let mut text = text;
    let mut rest = template;
    loop {
        let parameter = rest.match_indices(':').map(|(at, _)| at);
        let mut parameter = parameter.filter(|at| rest[at + 1..].starts_with(is_name));
        let literal = parameter.next().map_or(rest, |at| &rest[..at]);
        let Some(after) = text.strip_prefix(literal) else {
            values.truncate(known);
            return None;
        };
        text = after;
        rest = &rest[literal.len()..];
        let Some(named) = rest.strip_prefix(':') else { return Some(text) };
        let end = named.find(|c: char| !is_name(c)).unwrap_or(named.len());
        let (value, after) = capture_value(text);
        values.push((named[..end].to_owned(), value));
        (text, rest) = (after, &named[end..]);
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

/// The value, or the list of values, at the beginning of a text.
fn capture_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = match rest.as_bytes().first() {
            Some(b'\'') => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            Some(b'(') => rest.find(')').map_or(rest.len(), |end| end + 1),
            _ => rest.find([' ', ',', ')', ';']).unwrap_or(rest.len()),
        };
        value.extend(rest[..end].chars().filter(|c| *c != '\''));
        rest = &rest[end..];
        // A list has no blanks, unlike what surrounds it.
        match rest.strip_prefix(',') {
            Some(next) if !next.starts_with(' ') => {
                value.push(',');
                rest = next;
            }
            _ => return (value, rest),
        }
    }
}
