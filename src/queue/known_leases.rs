//! Sessions that were granted or found held here, as far as is known. This decides how an acquire
//! begins, and gives the metrics how long leases were held; it is never an answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::store::{FirstPacket, SessionName};

/// Far more than are held at once, in two or three megabytes.
const KNOWN_MAX: usize = 10_000;

/// Between two removals of expired leases while there is no room for another.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct KnownLeases {
    leases: HashMap<SessionName, KnownLease>,
    cleaned_at: Option<Instant>,
}

struct KnownLease {
    expires: Instant,
    /// When it was granted, if that was here.
    granted_at: Option<Instant>,
}

impl KnownLeases {
    /// How an acquire of this session should begin.
    pub fn first_packet(&self, name: &SessionName) -> FirstPacket {
        match self.leases.get(name) {
            Some(known) if known.expires > Instant::now() => FirstPacket::Read,
            _ => FirstPacket::Write,
        }
    }

    /// Somebody holds this session until then; `granted_at` if the lease was granted here just now.
    pub fn insert(&mut self, name: &SessionName, expires: Instant, granted_at: Option<Instant>) {
        if let Some(known) = self.leases.get_mut(name) {
            known.expires = expires;
            known.granted_at = granted_at.or(known.granted_at);
            return;
        }
        let now = Instant::now();
        let is_clean = self.cleaned_at.is_some_and(|at| now - at <= CLEANUP_INTERVAL);
        if self.leases.len() >= KNOWN_MAX && !is_clean {
            self.leases.retain(|_, known| known.expires > now);
            self.cleaned_at = Some(now);
        }
        if self.leases.len() < KNOWN_MAX {
            self.leases.insert(name.clone(), KnownLease { expires, granted_at });
        }
    }

    /// The lease of this session has ended; how long it was held, if it was granted here.
    pub fn remove(&mut self, name: &SessionName) -> Option<Duration> {
        self.leases.remove(name)?.granted_at.map(|at| at.elapsed())
    }
}
