//! A memory of sessions that this server granted or found held. It decides how an acquire begins,
//! and tells the metrics how long leases were held. It is never an answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::store::{FirstPacket, SessionName};

/// Far more sessions than are held at once, in two or three megabytes.
pub(super) const KNOWN_MAX: usize = 10_000;

/// Interval between removals of expired leases while the memory is full.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct KnownLeases {
    leases: HashMap<SessionName, KnownLease>,
    cleaned_at: Option<Instant>,
}

struct KnownLease {
    expires: Instant,
    /// When this server granted the lease, if it did.
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

    /// Notes that this session is held until `expires`. `granted_at` is set if this server has just
    /// granted the lease.
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

    /// Notes that the lease of this session has ended. Returns how long it was held, if this server
    /// granted it.
    pub fn remove(&mut self, name: &SessionName) -> Option<Duration> {
        self.leases.remove(name)?.granted_at.map(|at| at.elapsed())
    }
}
