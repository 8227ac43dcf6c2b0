//! The ids of new rows: one sequence per process, so that no request uses up an AUTO_INCREMENT id.

use std::sync::atomic::{AtomicI64, Ordering};

/// The maximum number of ids in the sequence: at a thousand leases a second, hours pass before one
/// is used again.
const IDS_MAX: i64 = 1 << 24;

/// The sequence uses at most the lowest quarter of the ids that the column can hold. The others are
/// left to the programs that use the table's counter.
const SHARE: u64 = 4;

/// Ids that count up to the highest, then continue from a random id.
///
/// The first id is the highest: an explicit id raises the table's counter above it, so that the
/// counter gives none of ours to another program. With a lower counter, another program's INSERT
/// could be given an id that we have just used, and its ON DUPLICATE KEY UPDATE would overwrite our
/// row. Ids count up because inserts in descending order deadlock.
pub struct Ids {
    highest: i64,
    next: AtomicI64,
}

impl Ids {
    /// The sequence for a column that holds ids up to `column_max`.
    pub fn new(column_max: u64) -> Self {
        let share = i64::try_from(column_max / SHARE).unwrap_or(IDS_MAX);
        let highest = share.clamp(1, IDS_MAX);
        Self { highest, next: highest.into() }
    }

    pub fn take(&self) -> i64 {
        let after = |id| Some(if id >= self.highest { self.random() } else { id + 1 });
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
        taken.unwrap_or(self.highest)
    }

    /// Continues from a random id, because another row has the last one.
    pub fn jump(&self) {
        self.next.store(self.random(), Ordering::Relaxed);
    }

    /// Notes that a packet was sent with the ids `sent`, and that rows were `written` with some of
    /// them. The highest id is repeated until a row was written with it: only that raises the
    /// counter.
    pub fn confirm(&self, written: impl IntoIterator<Item = i64>, sent: &[i64]) {
        if sent.contains(&self.highest) && !written.into_iter().any(|id| id == self.highest) {
            self.restart();
        }
    }

    /// Restarts the sequence if `next_id`, the table's counter, is one of our ids.
    pub fn keep_below(&self, next_id: u64) {
        if next_id <= self.highest.cast_unsigned() {
            self.restart();
        }
    }

    fn restart(&self) {
        self.next.store(self.highest, Ordering::Relaxed);
    }

    fn random(&self) -> i64 {
        let mut bytes = [0; 8];
        // Without random numbers the sequence begins at 1.
        let _ = getrandom::fill(&mut bytes);
        1 + i64::from_ne_bytes(bytes).rem_euclid(self.highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT_MAX: u64 = 2_147_483_647;
    const TINYINT_MAX: u64 = 127;

    #[test]
    fn the_first_id_is_the_highest_and_the_next_ones_count_up_from_a_random_id() {
        for (column_max, highest) in [(INT_MAX, IDS_MAX), (8_388_607, 2_097_151), (TINYINT_MAX, 31)]
        {
            let start = |_| {
                let ids = Ids::new(column_max);
                assert_eq!(ids.take(), highest);
                let start = ids.take();
                assert!((1..=highest).contains(&start));
                if start < highest {
                    assert_eq!(ids.take(), start + 1);
                }
                start
            };
            let starts: Vec<_> = (0..20).map(start).collect();
            assert!(starts.iter().any(|start| *start != starts[0]), "{starts:?}");
        }
    }

    #[test]
    fn a_random_id_follows_the_highest() {
        let ids = Ids::new(TINYINT_MAX);
        let taken: Vec<_> = (0..1_000).map(|_| ids.take()).collect();
        assert!(taken.iter().all(|id| (1..=31).contains(id)));
        assert!(taken.windows(2).all(|two| two[1] == two[0] + 1 || two[0] == 31));
        assert!(taken.windows(2).any(|two| two[0] == 31 && two[1] > 1));
    }

    #[test]
    fn the_highest_comes_again_until_it_is_written_and_if_the_counter_is_not_above_it() {
        let ids = Ids::new(INT_MAX);
        let (first, second) = (ids.take(), ids.take());
        ids.confirm([], &[second]);
        ids.confirm([first], &[first]);
        ids.keep_below(IDS_MAX.cast_unsigned() + 1);
        assert_eq!(ids.take(), second + 1);
        ids.confirm([second], &[first, second]);
        assert_eq!(ids.take(), IDS_MAX);
        ids.keep_below(IDS_MAX.cast_unsigned());
        assert_eq!(ids.take(), IDS_MAX);
    }

    #[test]
    fn a_jump_does_not_count_up() {
        let ids = Ids::new(INT_MAX);
        let _ = ids.take();
        let before = ids.take();
        ids.jump();
        assert_ne!(ids.take(), before + 1);
    }
}
