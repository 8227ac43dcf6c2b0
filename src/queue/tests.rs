use std::thread;
use std::time::{Duration, Instant};

use super::known_leases::{KNOWN_MAX, KnownLeases};
use super::*;
use crate::lease::{Holder, Holding, OwnerToken, RowVersion};
use crate::store::FirstPacket;

const BATCH: usize = 10;

fn name() -> SessionName {
    (b"bot1".into(), b"60123456789".into())
}

fn holding() -> Holding {
    Holding {
        expires: Instant::now() + Duration::from_secs(60),
        holder: Holder::Legacy,
        row: RowVersion::new(1, b""),
    }
}

fn waiter(pending: &'static str) -> Waiter<&'static str> {
    let requester = Requester { owner_token: OwnerToken::draw(), message_id: None };
    let arrived = Instant::now();
    Waiter { requester, arrived, until: arrived, pending }
}

fn refused(pending: &'static str) -> EndedWait<&'static str> {
    EndedWait { waiter: waiter(pending), holding: holding(), waiters: 0 }
}

/// Takes all turns, as a worker does. Returns whose turns they were, in their order.
fn take_turns(queues: &Queues<&'static str>) -> Vec<&'static str> {
    let mut taken = Vec::new();
    while let Some(Ready { name, turn, .. }) = queues.next(BATCH).pop() {
        let began = Instant::now();
        match turn {
            Turn::CheckMessage(_) => queues.finish_unchanged(&name),
            Turn::Acquire(_) => drop(queues.finish_granted(&name, began, holding())),
            Turn::Find(_) | Turn::Other(_) => drop(queues.finish(&name, LeaseChange::Unknown)),
        }
        taken.push(turn.into_pending());
    }
    taken
}

#[test]
fn everything_in_a_queue_has_its_turn() {
    let queues = Queues::default();
    queues.check_message_in_turn(&name(), refused("a"));
    queues.check_message_in_turn(&name(), refused("b"));
    queues.submit(&name(), "release", Instant::now());
    queues.join(&name(), waiter("c"), TokenOrigin::Ours);
    assert_eq!(take_turns(&queues), ["a", "b", "release", "c"]);
}

fn names<const N: usize>() -> [SessionName; N] {
    std::array::from_fn(|number| (b"bot1".into(), number.to_string().into()))
}

fn next_batch(queues: &Queues<&'static str>) -> Vec<&'static str> {
    queues.next(BATCH).into_iter().map(|ready| ready.turn.into_pending()).collect()
}

#[test]
fn a_waiter_that_joins_during_a_turn_has_its_turn() {
    let queues = Queues::default();
    queues.join(&name(), waiter("a"), TokenOrigin::Ours);
    let turn = queues.next(BATCH).pop().unwrap().turn;
    let began = Instant::now();
    queues.join(&name(), waiter("b"), TokenOrigin::Ours);
    let Turn::Acquire(first) = turn else {
        panic!("an acquire");
    };
    for refused in queues.finish_held(&name(), first, began, holding()) {
        queues.check_message_in_turn(&name(), refused);
    }
    assert_eq!(take_turns(&queues), ["a", "b"]);
}

#[test]
fn a_parked_turn_has_waited_since_it_came() {
    let queues = Queues::default();
    let mut patient = waiter("acquire");
    patient.until += Duration::from_secs(60);
    let came = [Instant::now(), patient.arrived];
    queues.submit(&name(), "release", came[0]);
    queues.join(&(b"bot2".into(), name().1), patient, TokenOrigin::Ours);
    let ready = queues.next(BATCH).into_iter();
    for (Ready { name, turn, since, .. }, expected) in
        ready.zip(["release", "acquire"].into_iter().zip(came))
    {
        assert!(queues.park(&name, turn, since).is_none());
        assert!(queues.next(BATCH).is_empty());
        queues.tick(Instant::now() + Duration::from_secs(1));
        let again = queues.next(BATCH).pop().unwrap();
        assert!(again.is_blocked && again.first_packet == FirstPacket::Read);
        assert_eq!((again.turn.into_pending(), again.since), expected);
        queues.end_blocked_turn(&name);
    }
}

#[test]
fn a_turn_behind_another_has_waited_since_it_came() {
    let queues = Queues::default();
    queues.submit(&name(), "renew", Instant::now());
    assert_eq!(queues.next(BATCH).len(), 1);
    let arrived = Instant::now();
    queues.submit(&name(), "release", arrived);
    let acquire = waiter("acquire");
    let until = acquire.until;
    queues.join(&name(), acquire, TokenOrigin::Ours);
    for since in [arrived, until] {
        let _ = queues.finish(&name(), LeaseChange::Unknown);
        assert_eq!(queues.next(BATCH).pop().unwrap().since, since);
    }
}

#[test]
fn blocked_sessions_have_their_turns_one_at_a_time_and_alone() {
    let (queues, names) = (Queues::default(), names::<3>());
    for name in &names[..2] {
        queues.submit(name, "blocked", Instant::now());
    }
    for Ready { name, turn, since, .. } in queues.next(BATCH) {
        queues.park(&name, turn, since);
    }
    queues.tick(Instant::now() + Duration::from_secs(1));
    queues.submit(&names[2], "free", Instant::now());
    assert_eq!(next_batch(&queues), ["blocked"]);
    assert_eq!(next_batch(&queues), ["free"]);
    queues.tick(Instant::now() + Duration::from_secs(1));
    assert!(next_batch(&queues).is_empty());
    queues.end_blocked_turn(&names[1]);
    queues.tick(Instant::now() + Duration::from_secs(1));
    assert!(next_batch(&queues).is_empty(), "another session has the turn");
    queues.end_blocked_turn(&names[0]);
    queues.tick(Instant::now() + Duration::from_secs(1));
    assert_eq!(next_batch(&queues), ["blocked"]);
}

#[test]
fn a_turn_that_is_parked_after_the_end_is_returned() {
    let queues = Queues::default();
    queues.submit(&name(), "release", Instant::now());
    let Ready { name, turn, since, .. } = queues.next(BATCH).pop().unwrap();
    queues.close();
    let back = queues.park(&name, turn, since);
    assert_eq!(back.map(Turn::into_pending), Some("release"));
}

#[test]
fn what_joins_after_the_end_is_returned_by_the_next_close() {
    let queues = Queues::default();
    assert!(queues.close().is_empty());
    queues.join(&name(), waiter("a"), TokenOrigin::Ours);
    queues.submit(&name(), "release", Instant::now());
    assert_eq!(queues.close(), ["a", "release"]);
}

fn patient(pending: &'static str) -> Waiter<&'static str> {
    let waiter = waiter(pending);
    Waiter { until: waiter.arrived + Duration::from_secs(60), ..waiter }
}

#[test]
fn nobody_waits_beyond_the_limit_of_all_queues() {
    let (queues, [full, late]) = (Queues::default(), names());
    assert!(!queues.is_ready());
    for _ in 0..QUEUED_MAX {
        queues.join(&full, patient("early"), TokenOrigin::Ours);
    }
    queues.join(&late, patient("late"), TokenOrigin::Ours);
    assert!(queues.is_ready());
    assert_eq!((queues.waiters(&full), queues.waiters(&late)), (QUEUED_MAX, 0));
    assert_eq!(queues.queued(), QUEUED_MAX + 1);
}

#[test]
fn a_requester_with_its_own_token_is_found_before_the_waiters_have_their_turns() {
    let (queues, [alone, waited_for, busy]) = (Queues::default(), names());
    queues.join(&alone, waiter("acquire"), TokenOrigin::Callers);
    let Ready { turn, first_packet, .. } = queues.next(BATCH).pop().unwrap();
    assert!(matches!(turn, Turn::Acquire(_)) && first_packet == FirstPacket::Write);
    queues.join(&waited_for, waiter("waits"), TokenOrigin::Ours);
    queues.join(&waited_for, waiter("find"), TokenOrigin::Callers);
    assert!(matches!(queues.next(BATCH).pop().unwrap().turn, Turn::Find(_)));
    queues.submit(&busy, "renew", Instant::now());
    assert_eq!(next_batch(&queues), ["renew"]);
    queues.join(&busy, waiter("find"), TokenOrigin::Callers);
    let _ = queues.finish(&busy, LeaseChange::Unknown);
    assert!(matches!(queues.next(BATCH).pop().unwrap().turn, Turn::Find(_)));
}

#[test]
fn a_grant_answers_all_requests_of_its_requester() {
    let queues = Queues::default();
    let (first, other) = (patient("first"), patient("other"));
    let owner_token = first.requester.owner_token.clone();
    let requester = Requester { owner_token, message_id: None };
    let again = Waiter { requester, ..patient("again") };
    for waiter in [first, other, again] {
        queues.join(&name(), waiter, TokenOrigin::Ours);
    }
    let turn = queues.next(BATCH).pop().unwrap().turn;
    let Turn::Acquire(granted) = turn else { panic!("an acquire") };
    let same = queues.take_same(&name(), &granted.requester);
    assert_eq!(same.into_iter().map(|waiter| waiter.pending).collect::<Vec<_>>(), ["again"]);
    assert_eq!((queues.waiters(&name()), queues.queued()), (1, 1));
}

#[test]
fn a_batch_has_no_more_turns_than_asked_for() {
    let queues = Queues::default();
    for name in &names::<3>() {
        queues.submit(name, "renew", Instant::now());
    }
    assert_eq!([queues.next(2).len(), queues.next(2).len()], [2, 1]);
    assert!(!queues.is_ready());
}

#[test]
fn a_session_is_blocked_until_its_lock_is_gone() {
    for is_unblocked in [false, true] {
        let (queues, [name, other]) = (Queues::default(), names());
        for session in [&name, &other] {
            queues.submit(session, "release", Instant::now());
            let Ready { turn, since, is_blocked, .. } = queues.next(BATCH).pop().unwrap();
            assert!(!is_blocked);
            queues.park(session, turn, since);
            queues.tick(Instant::now());
            assert!(!queues.is_ready(), "its lock is checked again later");
        }
        queues.tick(Instant::now() + Duration::from_secs(1));
        assert_eq!(next_batch(&queues), ["release"]);
        if is_unblocked {
            queues.unblock(&name);
        }
        let _ = queues.finish(&name, LeaseChange::Unknown);
        queues.end_blocked_turn(&name);
        queues.submit(&name, "renew", Instant::now());
        let renew = queues.next(BATCH).pop().unwrap();
        assert_eq!((renew.is_blocked, renew.turn.into_pending()), (!is_unblocked, "renew"));
    }
}

#[test]
fn the_jobs_for_waiters_rest_until_somebody_waits_a_turn_is_parked_or_the_service_stops() {
    let wakes: [fn(&Queues<&'static str>); 3] = [
        |queues| queues.join(&name(), patient("waits"), TokenOrigin::Ours),
        |queues| {
            queues.submit(&name(), "release", Instant::now());
            let Ready { name, turn, since, .. } = queues.next(BATCH).pop().unwrap();
            queues.park(&name, turn, since);
        },
        |queues| drop(queues.close()),
    ];
    for wake in wakes {
        let queues = Queues::default();
        thread::scope(|scope| {
            let rest = scope.spawn(|| queues.wait_for_waiters());
            thread::sleep(Duration::from_millis(50));
            assert!(!rest.is_finished());
            wake(&queues);
        });
    }
}

/// A turn for the only session that is ready, as an acquire.
fn next_acquire(queues: &Queues<&'static str>) -> Waiter<&'static str> {
    match queues.next(BATCH).pop().unwrap().turn {
        Turn::Acquire(waiter) => waiter,
        turn => panic!("the turn of {}", turn.into_pending()),
    }
}

#[test]
fn waiters_have_a_turn_when_the_lease_expires_or_its_row_changes() {
    let queues = Queues::default();
    let held = holding();
    let wakes: [fn(&Queues<&'static str>, &Holding); 2] = [
        |queues, held| drop(queues.tick(held.expires)),
        |queues, held| {
            assert_eq!(queues.watched(), [held.row]);
            queues.rows_changed(&[RowVersion::new(2, b"")]);
            assert!(!queues.is_ready(), "another row");
            queues.rows_changed(&queues.watched());
        },
    ];
    for wake in wakes {
        queues.join(&name(), patient("waits"), TokenOrigin::Ours);
        let waiter = next_acquire(&queues);
        assert!(queues.watched().is_empty());
        assert!(queues.finish_held(&name(), waiter, Instant::now(), held.clone()).is_empty());
        assert!(queues.tick(Instant::now()).is_empty() && !queues.is_ready());
        wake(&queues, &held);
        assert_eq!(next_acquire(&queues).pending, "waits");
        let _ = queues.finish(&name(), LeaseChange::Unknown);
        assert!(queues.watched().is_empty() && queues.state.lock().queues.is_empty());
    }
}

#[test]
fn a_wait_ends_in_time_and_no_earlier() {
    let queues = Queues::default();
    for waiter in [patient("patient"), waiter("impatient")] {
        queues.join(&name(), waiter, TokenOrigin::Ours);
    }
    let first = next_acquire(&queues);
    let until = first.until;
    let ended = queues.finish_held(&name(), first, Instant::now(), holding());
    let [ended] = &ended[..] else { panic!("one wait is over") };
    assert_eq!((ended.waiter.pending, ended.waiters, queues.queued()), ("impatient", 1, 1));
    // The lease of holding() ends after the wait.
    assert!(queues.tick(until.checked_sub(Duration::from_millis(1)).unwrap()).is_empty());
    let ended = queues.tick(until);
    assert_eq!(
        ended.into_iter().map(|ended| ended.waiter.pending).collect::<Vec<_>>(),
        ["patient"]
    );
    assert!(queues.queued() == 0 && queues.state.lock().queues.is_empty());
}

#[test]
fn a_failure_also_fails_those_who_came_before_the_attempt() {
    let queues = Queues::default();
    for pending in ["first", "second"] {
        queues.join(&name(), patient(pending), TokenOrigin::Ours);
    }
    next_acquire(&queues);
    let began = Instant::now();
    queues.join(&name(), Waiter { arrived: began, ..patient("later") }, TokenOrigin::Ours);
    queues.submit(&name(), "renew", Instant::now());
    assert_eq!(queues.finish_failed(&name(), began), ["second", "renew"]);
    assert_eq!(queues.queued(), 1);
    assert_eq!(next_acquire(&queues).pending, "later");
}

#[test]
fn a_waiter_that_does_not_hold_the_session_gets_its_place_in_the_queue() {
    let queues = Queues::default();
    queues.join(&name(), patient("first"), TokenOrigin::Ours);
    queues.join(&name(), patient("own token"), TokenOrigin::Callers);
    let Turn::Find(waiter) = queues.next(BATCH).pop().unwrap().turn else { panic!("a find") };
    queues.rejoin(&name(), waiter);
    assert_eq!((queues.queued(), next_acquire(&queues).pending), (2, "first"));
    let ended = queues.finish_granted(&name(), Instant::now(), holding());
    assert!(ended.is_empty() && queues.waiters(&name()) == 1);
}

#[test]
fn an_acquire_begins_with_a_read_while_this_server_knows_a_lease() {
    let (mut known, now) = (KnownLeases::default(), Instant::now());
    let [session, expired, unknown] = names();
    let later = now + Duration::from_secs(60);
    known.insert(&session, now, Some(now));
    known.insert(&session, later, None);
    known.insert(&expired, now, None);
    let first = [&session, &expired, &unknown].map(|name| known.first_packet(name));
    assert_eq!(first, [FirstPacket::Read, FirstPacket::Write, FirstPacket::Write]);
    assert!(known.remove(&session).is_some_and(|held_for| held_for <= now.elapsed()));
    assert_eq!((known.remove(&session), known.remove(&expired)), (None, None));
    assert_eq!(known.first_packet(&session), FirstPacket::Write);
}

#[test]
fn the_memory_of_leases_is_bounded_and_forgets_expired_ones_first() {
    let (mut known, now) = (KnownLeases::default(), Instant::now());
    let later = now + Duration::from_secs(60);
    let name = |number: usize| (b"bot1".into(), number.to_string().into());
    known.insert(&name(0), later, None);
    (1..KNOWN_MAX).for_each(|number| known.insert(&name(number), now, None));
    (KNOWN_MAX..2 * KNOWN_MAX).for_each(|number| known.insert(&name(number), later, None));
    let kept = [0, KNOWN_MAX, 2 * KNOWN_MAX - 2, 2 * KNOWN_MAX - 1];
    let first = kept.map(|number| known.first_packet(&name(number)));
    let read = FirstPacket::Read;
    assert_eq!(first, [read, read, read, FirstPacket::Write]);
}
