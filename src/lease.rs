//! The words of the product: sessions, leases, tokens, and the 62 characters in which a lease is
//! stored. No input or output happens here.
//!
//! A lease lives in the one column `timestamp` of its row, so that whoever overwrites or deletes
//! the row ends the lease in one atom, even a program that knows nothing of owner tokens:
//!
//! ```text
//! 2025-10-14 09:00:00.000000 1760432400123456 48210000000000000007    (stored without the spaces)
//! └  expiry minus 30 s     ┘ └ fencing token┘ └   owner token    ┘
//! ```
//!
//! The first part is what an old program reads: a datetime that holds the session for 30 s. The
//! digits behind it read as more digits of its fraction, on MySQL and MariaDB alike.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// How long a timestamp holds a session. Old programs compute with it, so it can never change;
/// a lease of another length stores an earlier or later timestamp instead.
pub const HOLD_MS: u64 = 30_000;

/// Default life of a lease: what the old programs' callers are used to.
pub const TTL_DEFAULT_MS: u64 = HOLD_MS;

/// Shortest life of a lease. A write may wait 1 s for a row lock, and the stored expiry has whole
/// seconds: less could not be kept honestly.
pub const TTL_MIN_MS: u64 = 1_000;

/// Longest life of a lease that can be asked for: a crashed holder blocks its customer that long.
pub const TTL_MAX_MS: u64 = 3_600_000;

/// Longest id in characters: the width of the production columns.
pub const ID_MAX_CHARS: usize = 255;

/// Digits of an owner token: as many as make guessing hopeless while the whole still reads as a
/// datetime. Fixed by the stored form.
pub const OWNER_TOKEN_DIGITS: usize = 20;

/// The number of owner tokens: one for every row of digits.
const OWNER_TOKENS: u128 = 10_u128.pow(20);

/// The stored form begins with a datetime; [`FENCING_DIGITS`] and [`OWNER_TOKEN_DIGITS`] follow.
const DATETIME_CHARS: usize = "2025-10-14 09:00:00.000000".len();

/// The datetime without its fraction.
const DATE_CHARS: usize = "2025-10-14 09:00:00".len();

/// The digit that says of a lease that it was made firm: the last one of the datetime.
const FIRM_AT: usize = DATETIME_CHARS - 1;

/// Microseconds since 1970 have 16 digits from 2001 to 2286.
const FENCING_DIGITS: usize = 16;

/// Characters of a stored lease: 62.
pub const STORED_CHARS: usize = DATETIME_CHARS + FENCING_DIGITS + OWNER_TOKEN_DIGITS;

/// Fencing tokens stay below this: MySQL rounds a datetime at the seventh digit of its fraction,
/// which is the fencing token's first, so that one must not exceed 4. Reached in the year 2128.
const FENCING_LIMIT: u64 = 4_999_999_999_999_999;

/// Added to an expiry before its fraction is cut off, so that a lease never ends early.
const ROUND_UP_US: i64 = 999_999;

/// What is added to the clock, in microseconds, to get the stored date of something that lasts so
/// long from then on. The date has whole seconds; the fraction is cut off.
#[must_use]
pub fn date_shift_us(lasts_ms: u64) -> i64 {
    let shift_ms = lasts_ms.cast_signed() - HOLD_MS.cast_signed();
    shift_ms * 1_000 + ROUND_UP_US
}

/// One half of a session: the bot's number or instance, or the customer's phone number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(String);

impl Id {
    /// An id that a lease can be taken for: 1–255 printable ASCII characters, no blank at either
    /// end. The table's collation makes all emoji equal and ignores blanks at the end, so
    /// anything else could name somebody else's session.
    ///
    /// # Errors
    /// A phrase that says what an id is.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if text.is_empty() || text.len() > ID_MAX_CHARS || !printable || text.trim() != text {
            return Err("must be 1-255 printable ASCII characters without a blank at either end");
        }
        Ok(Self(text.to_owned()))
    }

    /// An id for looking and forcing, which must reach old rows of any spelling.
    ///
    /// # Errors
    /// A phrase that says what the column can hold.
    pub fn as_stored(text: &str) -> Result<Self, &'static str> {
        match text.chars().count() {
            1..=ID_MAX_CHARS => Ok(Self(text.to_owned())),
            _ => Err("must be 1-255 characters"),
        }
    }

    /// An id that was read from the table.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One conversation: what a lease is for. Displayed as the log lines show it, with anything
/// unprintable escaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    /// The bot's number or instance.
    pub id_device: Id,
    /// The customer's phone number.
    pub id_prospect: Id,
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prospect, device) = (self.id_prospect.as_str(), self.id_device.as_str());
        write!(f, "id_prospect={prospect:?} id_device={device:?}")
    }
}

/// Proof of ownership, drawn anew for every lease. Displayed and debugged as its last four
/// digits, so that no log shows it; [`OwnerToken::secret`] is the way to the whole.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OwnerToken(String);

impl OwnerToken {
    /// Draws a token from the system's random numbers.
    ///
    /// # Panics
    /// If the system has no random numbers: nothing safe can be done without.
    #[must_use]
    pub fn draw() -> Self {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the system gives random numbers");
        let number = u128::from_ne_bytes(bytes) % OWNER_TOKENS;
        Self(format!("{number:0OWNER_TOKEN_DIGITS$}"))
    }

    /// A token that the caller has drawn.
    ///
    /// # Errors
    /// A phrase that says what a token is.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.len() == OWNER_TOKEN_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be a string of 20 decimal digits")
        }
    }

    /// All 20 digits: for the database and for the owner's answer, nothing else.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[OWNER_TOKEN_DIGITS - 4..])
    }
}

impl fmt::Debug for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerToken(…{self})")
    }
}

/// Longest message id: what the table holds. Providers' ids have some 30 to 130 characters.
pub const MESSAGE_ID_MAX_CHARS: usize = 255;

/// Longest result of an answered message, in bytes: a reference to the reply, such as its id at
/// the provider, and not the reply itself.
pub const RESULT_MAX_BYTES: usize = 512;

/// The message that a lease is for, by the name that its provider gave it. Compared exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageId(String);

impl MessageId {
    /// An id of 1–255 printable ASCII characters.
    ///
    /// # Errors
    /// A phrase that says what a message id is.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if printable && (1..=MESSAGE_ID_MAX_CHARS).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1-255 printable ASCII characters")
        }
    }

    /// The id's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A message that is answered, and what its worker leaves for those who bring it again.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// JSON text of at most [`RESULT_MAX_BYTES`], given back byte for byte.
    pub result: Option<String>,
}

/// Everybody's view of an answered message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// How long ago it was committed, by the database's clock.
    pub committed_ago: Duration,
    /// What its worker left, as JSON text.
    pub result: Option<String>,
}

/// Rises with every new lease of a session: the database clock's microseconds since 1970 at the
/// grant. Public; a resource that remembers the highest one seen can refuse a late worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FencingToken(pub u64);

/// The life that a lease is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(u64);

impl Ttl {
    /// A ttl within [`TTL_MIN_MS`] and the lesser of [`TTL_MAX_MS`] and `max_hold_ms`.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub fn new(ttl_ms: u64, max_hold_ms: u64) -> Result<Self, String> {
        let longest_ms = TTL_MAX_MS.min(max_hold_ms);
        if (TTL_MIN_MS..=longest_ms).contains(&ttl_ms) {
            Ok(Self(ttl_ms))
        } else {
            Err(format!("must be {TTL_MIN_MS}-{longest_ms} milliseconds"))
        }
    }

    /// [`TTL_DEFAULT_MS`], or the server's maximum if that is less.
    #[must_use]
    pub fn default_within(max_hold_ms: u64) -> Self {
        Self(TTL_DEFAULT_MS.min(max_hold_ms))
    }

    /// The ttl, cut to what is left; `None` if nothing is.
    #[must_use]
    pub fn cut_to(self, left_ms: u64) -> Option<Self> {
        (left_ms > 0).then(|| Self(self.0.min(left_ms)))
    }

    /// The ttl in milliseconds.
    #[must_use]
    pub fn as_ms(self) -> u64 {
        self.0
    }

    /// The ttl as a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// How a lease came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The session was free.
    New,
    /// A stale row was replaced.
    Takeover(Stale),
    /// The same owner token holds it already: an answer was lost and asked for again.
    Again,
}

impl How {
    /// The word in the answer.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Takeover(_) => "takeover",
            Self::Again => "again",
        }
    }
}

/// What a takeover replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// A lease: its holder crashed or overran.
    Lease,
    /// An old program's row: such programs may leave all of theirs behind.
    Legacy,
}

/// A row as it was seen once: enough to notice that it changed, and nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowVersion {
    /// Its primary key.
    pub key: u64,
    hash: u64,
}

impl RowVersion {
    /// The version with these stored bytes.
    #[must_use]
    pub fn new(key: u64, stored: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        stored.hash(&mut hasher);
        let hash = hasher.finish();
        Self { key, hash }
    }
}

/// The owner's view of a lease: the only one with the owner token.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Proof of ownership.
    pub owner_token: OwnerToken,
    /// Higher than that of every earlier lease of the session.
    pub fencing_token: FencingToken,
    /// How it came about.
    pub how: How,
    /// The life it was asked for.
    pub ttl: Ttl,
    /// No later than its true expiry, on this machine's steady clock.
    pub expires: Instant,
    /// The row it is stored in.
    pub row: RowVersion,
}

impl Lease {
    /// Time until the expiry, on this machine's steady clock.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }

    /// Whether too little is left to hand it out: less than half of what was asked for. A lease
    /// that was only found again is its owner's business.
    #[must_use]
    pub fn is_worn(&self) -> bool {
        self.how != How::Again && self.remaining() < self.ttl.as_duration() / 2
    }

    /// What everybody else may know of it.
    #[must_use]
    pub fn holding(&self) -> Holding {
        let holder = Holder::Leased {
            fencing_token: self.fencing_token,
            held_ms: 0,
        };
        Holding {
            expires: self.expires,
            holder,
            row: self.row,
        }
    }
}

/// Everybody else's view of a lease.
#[derive(Clone, Debug)]
pub struct Holding {
    /// When it ends, on this machine's steady clock.
    pub expires: Instant,
    /// Who wrote it.
    pub holder: Holder,
    /// The row it is stored in.
    pub row: RowVersion,
}

impl Holding {
    /// Time until the expiry, on this machine's steady clock.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.expires.saturating_duration_since(Instant::now())
    }
}

/// Who wrote a row that holds its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This program, or another server of its kind.
    Leased {
        /// The lease's fencing token.
        fencing_token: FencingToken,
        /// Time since the grant, in milliseconds.
        held_ms: u64,
    },
    /// An old program, whose row says neither who nor since when.
    Legacy,
}

/// The answer to an acquire.
#[derive(Clone, Debug)]
pub enum Acquired {
    /// The caller holds the session now.
    Granted(Lease),
    /// Somebody else does.
    Held(Holding),
    /// The message that the lease would be for is answered already.
    Duplicate(Record),
}

/// The answer to a recall.
#[derive(Clone, Debug)]
pub enum Recalled {
    /// The worker holds the session already.
    Lease(Lease),
    /// Its message is answered already.
    Duplicate(Record),
    /// Neither.
    Nothing,
}

/// The answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// The message is the caller's to answer, and nobody else's.
    New,
    /// The caller has committed it before: an answer was lost and asked for again.
    Again,
    /// The lease is not the caller's any more, or it expired; nothing was recorded.
    Lost,
    /// Somebody else has committed it.
    Duplicate(Record),
}

/// The answer to a renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease has a new expiry.
    Renewed {
        /// Its fencing token, the same as before.
        fencing_token: FencingToken,
        /// When it ends now, on this machine's steady clock.
        expires: Instant,
    },
    /// It is not the caller's any more, or it expired: an expired lease is never revived.
    Lost,
    /// It was held for as long as a lease can be.
    MaxHold,
}

/// The answer to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// The session is free; who had held it.
    Released(Holder),
    /// The lease was not the caller's any more, and nothing was deleted.
    Lost,
}

/// The answer to an operator's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forced {
    /// The session is free; who had held it.
    Released(Holder),
    /// Nobody held it, or not by the lease that was named.
    NotHeld,
}

/// Where an owner token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOrigin {
    /// The caller drew it, and may have used it before.
    Callers,
    /// We did, for this request.
    Ours,
}

/// Whether a lease may be taken back by the server that wrote it, if that could tell nobody.
///
/// Nobody but the server that drew a token knows it before it tells. Such a lease has an even
/// fencing token. Whoever asks for it by its token, anywhere, makes it firm first: the last digit of
/// its date's fraction, a microsecond, is 1 from then on. So taking it back, which is a compare-and-swap as
/// everything is, never takes it from somebody who was told. A lease for a token that a caller drew
/// has an odd fencing token, and is firm from the start: its owner may be asking another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may be taken back.
    Tentative,
    /// It ends by its release or its expiry only.
    Firm,
}

/// What a row's `timestamp` says, apart from its date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The 62 characters of a lease.
    Lease {
        /// The lease's fencing token.
        fencing_token: FencingToken,
        /// The lease's owner token.
        owner_token: OwnerToken,
        /// Whether it may be taken back.
        standing: Standing,
    },
    /// Anything else: an old program's datetime, or garbage.
    Foreign,
}

impl Stamp {
    /// Reads the stored bytes.
    #[must_use]
    pub fn parse(stored: &[u8]) -> Self {
        Self::parse_lease(stored).unwrap_or(Self::Foreign)
    }

    fn parse_lease(stored: &[u8]) -> Option<Self> {
        let text = str::from_utf8(stored).ok().filter(|text| text.is_ascii())?;
        if text.len() != STORED_CHARS || !has_shape(&text[..DATETIME_CHARS]) {
            return None;
        }
        let (fencing, owner) = text[DATETIME_CHARS..].split_at(FENCING_DIGITS);
        let owner_token = OwnerToken::new(owner).ok()?;
        let all_digits = fencing.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = fencing.parse().ok().filter(|_| all_digits)?;
        let standing = if number.is_multiple_of(2) && stored[FIRM_AT] == b'0' {
            Standing::Tentative
        } else {
            Standing::Firm
        };
        (number < FENCING_LIMIT).then_some(Self::Lease {
            fencing_token: FencingToken(number),
            owner_token,
            standing,
        })
    }

    /// The digit that makes a stored lease firm.
    pub const FIRM_DIGIT: char = '1';

    /// The digit of a stored lease in that place.
    #[must_use]
    pub fn standing_digit(stored: &[u8]) -> char {
        stored.get(FIRM_AT).copied().map_or('0', char::from)
    }

    /// The stored bytes of a lease, made firm.
    #[must_use]
    pub fn made_firm(mut stored: Vec<u8>) -> Vec<u8> {
        if let Some(digit) = stored.get_mut(FIRM_AT) {
            *digit = Self::FIRM_DIGIT as u8;
        }
        stored
    }
}

/// How the table's dates, which tell the time of some zone, relate to the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    ahead_s: i64,
}

impl Calendar {
    /// Learned from a stored lease whose date is that of this second since 1970. `None` if it is
    /// no date.
    #[must_use]
    pub fn learn(stored: &[u8], date_s: i64) -> Option<Self> {
        let date = str::from_utf8(stored).ok()?.get(..DATE_CHARS)?;
        let date: DateTime = date.parse().ok()?;
        let said_s = Offset::UTC.to_timestamp(date).ok()?.as_second();
        Some(Self {
            ahead_s: said_s - date_s,
        })
    }

    /// The stored form of a new lease that is dated so; `None` in a year that has no four digits.
    #[must_use]
    pub fn stored(
        self,
        date_s: i64,
        fencing_token: FencingToken,
        owner_token: &OwnerToken,
    ) -> Option<Vec<u8>> {
        let said = Timestamp::from_second(date_s + self.ahead_s).ok()?;
        let date = Offset::UTC.to_datetime(said).to_string().replace('T', " ");
        let (fencing, owner) = (fencing_token.0, owner_token.secret());
        Some(format!("{date}.000000{fencing:0FENCING_DIGITS$}{owner}").into_bytes())
    }
}

/// Whether the text is a datetime with an empty fraction, or one microsecond, as this program writes
/// it. What it means as a date is for the database to say.
fn has_shape(datetime: &str) -> bool {
    datetime
        .bytes()
        .zip("0000-00-00 00:00:00.000000".bytes())
        .enumerate()
        .all(|(at, (byte, shape))| match shape {
            b'0' if at < DATE_CHARS => byte.is_ascii_digit(),
            b'0' if at == FIRM_AT => matches!(byte, b'0' | b'1'),
            _ => byte == shape,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = "2025-10-14 09:00:00.000000176043240012345648210000000000000007";

    #[test]
    fn a_stored_lease_is_read_back() {
        let expected = Stamp::Lease {
            fencing_token: FencingToken(1_760_432_400_123_456),
            owner_token: OwnerToken::new("48210000000000000007").unwrap(),
            standing: Standing::Tentative,
        };
        assert_eq!(STORED.len(), STORED_CHARS);
        assert_eq!(Stamp::parse(STORED.as_bytes()), expected);
    }

    #[test]
    fn dates_are_written_as_the_table_has_them() {
        let ahead = Calendar::learn(b"2025-10-14 17:00:00", 1_760_432_400).unwrap();
        let owner_token = OwnerToken::new("48210000000000000007").unwrap();
        let leap_day = ahead.stored(1_709_136_001, FencingToken(17), &owner_token);
        let expected = b"2024-02-29 00:00:01.000000000000000000001748210000000000000007";
        assert_eq!(leap_day.as_deref(), Some(&expected[..]));
        for garbage in ["", "garbage", "2025-13-14 17:00:00", "2025-10-14T17:00:0"] {
            assert_eq!(Calendar::learn(garbage.as_bytes(), 0), None);
        }
    }

    #[test]
    fn a_lease_is_firm_by_its_mark_or_by_an_odd_fencing_token() {
        let is_firm = |stored: &[u8]| {
            matches!(
                Stamp::parse(stored),
                Stamp::Lease {
                    standing: Standing::Firm,
                    ..
                }
            )
        };
        assert!(!is_firm(STORED.as_bytes()));
        assert!(is_firm(&Stamp::made_firm(STORED.as_bytes().to_vec())));
        assert!(is_firm(STORED.replace("123456", "123457").as_bytes()));
    }

    #[test]
    fn anything_but_a_stored_lease_is_foreign() {
        for at in 0..STORED_CHARS {
            let mut bytes = STORED.as_bytes().to_vec();
            bytes[at] = b'x';
            assert_eq!(Stamp::parse(&bytes), Stamp::Foreign, "x at {at}");
            assert_eq!(Stamp::parse(&bytes[..at]), Stamp::Foreign, "cut at {at}");
        }
        let longer = format!("{STORED}0");
        let fraction = STORED.replace(".000000", ".100000");
        let last_digit = STORED.replace(".000000", ".000002");
        let signed = STORED.replace("1760432400123456", "+760432400123456");
        let beyond_rounding = STORED.replace("1760432400123456", "4999999999999999");
        for text in [
            "",
            "2025-10-14 09:00:00",
            &longer,
            &fraction,
            &last_digit,
            &signed,
            &beyond_rounding,
        ] {
            assert_eq!(Stamp::parse(text.as_bytes()), Stamp::Foreign, "{text:?}");
        }
        assert_eq!(Stamp::parse(&[0xff; STORED_CHARS]), Stamp::Foreign);
    }

    #[test]
    fn a_lease_is_worn_once_half_of_it_is_gone_unless_its_owner_asks_again() {
        let is_worn = |how, left_ms| {
            Lease {
                owner_token: OwnerToken::draw(),
                fencing_token: FencingToken(2),
                how,
                ttl: Ttl::new(10_000, 10_000).unwrap(),
                expires: Instant::now() + Duration::from_millis(left_ms),
                row: RowVersion::new(1, b""),
            }
            .is_worn()
        };
        assert!(!is_worn(How::New, 9_000));
        assert!(is_worn(How::New, 4_000));
        assert!(is_worn(How::Takeover(Stale::Lease), 0));
        assert!(!is_worn(How::Again, 4_000));
    }

    #[test]
    fn a_drawn_owner_token_is_a_valid_one_and_never_drawn_twice() {
        let drawn: Vec<_> = (0..1_000).map(|_| OwnerToken::draw()).collect();
        for (n, token) in drawn.iter().enumerate() {
            assert_eq!(OwnerToken::new(token.secret()).as_ref(), Ok(token));
            assert!(!drawn[..n].contains(token));
        }
        assert!(drawn.iter().any(|token| !token.secret().starts_with('0')));
    }

    #[test]
    fn an_owner_token_shows_only_its_last_four_digits() {
        let token = OwnerToken::new("48210000000000000007").unwrap();
        assert_eq!(format!("{token} {token:?}"), "0007 OwnerToken(…0007)");
    }

    #[test]
    fn ids_are_printable_ascii_without_blanks_at_the_ends() {
        let longest = "x".repeat(ID_MAX_CHARS);
        for good in ["6", "60123456789", "a b", "~!'\"\\%_", &longest] {
            assert!(Id::new(good).is_ok(), "{good:?}");
        }
        let too_long = "x".repeat(ID_MAX_CHARS + 1);
        for bad in [
            "", " ", " a", "a ", "a\n", "a\0b", "é", "😀", "\u{7f}", &too_long,
        ] {
            assert!(Id::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_ttl_keeps_to_both_limits() {
        assert!(Ttl::new(TTL_MIN_MS - 1, u64::MAX).is_err());
        assert!(Ttl::new(TTL_MIN_MS, u64::MAX).is_ok());
        assert!(Ttl::new(TTL_MAX_MS, u64::MAX).is_ok());
        assert!(Ttl::new(TTL_MAX_MS + 1, u64::MAX).is_err());
        assert!(Ttl::new(60_001, 60_000).is_err());
        assert_eq!(Ttl::default_within(900_000).as_ms(), TTL_DEFAULT_MS);
        assert_eq!(Ttl::default_within(5_000).as_ms(), 5_000);
    }
}
