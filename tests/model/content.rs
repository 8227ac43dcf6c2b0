//! What the column `timestamp` contains, and its text.

use super::sql::Owner;

/// How long a date holds a session.
pub const HOLD_US: u64 = 30_000_000;

const SECOND_US: u64 = 1_000_000;

/// Added before a date is cut to whole seconds.
const ROUND_UP_US: u64 = SECOND_US - 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    Lease {
        date_s: u64,
        fencing: u64,
        owner: Owner,
    },
    /// An old program's.
    Date(u64),
    /// No date.
    Garbage,
}

impl Content {
    /// A lease that lasts this long, granted now.
    pub fn lease(owner: Owner, now_us: u64, ttl_us: u64, fencing: u64) -> Self {
        let shift_us = (ttl_us + ROUND_UP_US).cast_signed() - HOLD_US.cast_signed();
        Self::shifted(owner, now_us, shift_us, fencing)
    }

    /// A lease whose date is this far from now, cut to whole seconds.
    pub fn shifted(owner: Owner, now_us: u64, shift_us: i64, fencing: u64) -> Self {
        let date_s = now_us.saturating_add_signed(shift_us) / SECOND_US;
        Self::Lease { date_s, fencing, owner }
    }

    pub fn owner(&self) -> Option<Owner> {
        match self {
            Self::Lease { owner, .. } => Some(*owner),
            _ => None,
        }
    }

    pub fn fencing(&self) -> Option<u64> {
        match self {
            Self::Lease { fencing, .. } => Some(*fencing),
            _ => None,
        }
    }

    /// Its date, in microseconds.
    pub fn date_us(&self) -> Option<u64> {
        match self {
            Self::Lease { date_s, .. } | Self::Date(date_s) => Some(date_s * SECOND_US),
            Self::Garbage => None,
        }
    }

    pub fn expires_us(&self) -> Option<u64> {
        self.date_us().map(|date_us| date_us + HOLD_US)
    }

    /// Whether it holds its session.
    pub fn is_live(&self, now_us: u64) -> bool {
        self.expires_us().is_some_and(|expires_us| expires_us > now_us)
    }

    pub fn text(&self) -> String {
        match self {
            Self::Lease { date_s, fencing, owner } => {
                format!("{}.000000{fencing:016}{owner:020}", date_text(*date_s))
            }
            Self::Date(date_s) => date_text(*date_s),
            Self::Garbage => "x".to_owned(),
        }
    }
}

/// `2025-10-14 09:00:00` of seconds since 1970, by Howard Hinnant's `civil_from_days`.
fn date_text(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}
