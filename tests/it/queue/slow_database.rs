//! Requests that queue behind a slow database.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{Fault, Reply, Session, World, eventually, tests};

tests![nobody_waits_behind_what_only_reads, what_has_waited_for_long_is_not_tried,];

fn nobody_waits_behind_what_only_reads(world: &World) {
    const READS: usize = 8;
    let (proxy, service) = world.serve_through_proxy(&["--workers", "1"]);
    let answered = |reply: Reply| Some(Instant::now()).filter(|_| reply.status == 200);
    let first = || {
        proxy.set(Fault::None);
        service.recovery();
        proxy.set(Fault::HoldWrites);
        thread::scope(|scope| {
            // This one keeps the only worker busy.
            scope.spawn(|| service.acquire(&Session::new(), json!({})));
            thread::sleep(Duration::from_millis(300));
            let read = || answered(service.get(&Session::new().path()));
            let reads = [(); READS].map(|()| scope.spawn(read));
            thread::sleep(Duration::from_millis(300));
            let acquire = || answered(service.acquire(&Session::new(), json!({})));
            let acquire = scope.spawn(acquire);
            thread::sleep(Duration::from_millis(300));
            proxy.set(Fault::Delay(Duration::from_millis(50)));
            let granted = acquire.join().unwrap()?;
            let reads = reads.map(|read| read.join().unwrap());
            let is_first = reads.into_iter().all(|read| read.is_some_and(|read| granted < read));
            is_first.then_some(())
        })
    };
    // It tries again, because a busy machine may stall.
    eventually(|| "the acquire is answered first", first);
}

fn what_has_waited_for_long_is_not_tried(world: &World) {
    let (proxy, service) = world.serve_through_proxy(&["--workers", "1"]);
    let answers = || {
        service.recovery();
        let session = Session::new();
        let owner_token = world.service.hold(&session);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| service.acquire(&session, json!({"wait_ms": 20_000})));
            service.wait_for_waiters(&session, 1);
            proxy.set(Fault::HoldWrites);
            // This one keeps the only worker busy.
            scope.spawn(|| service.acquire(&Session::new(), json!({})));
            thread::sleep(Duration::from_millis(100));
            let behind = scope.spawn(|| service.acquire(&Session::new(), json!({})));
            // The service detects at once that the waiter has its turn.
            assert_eq!(world.service.release(&session, &owner_token).status, 200);
            thread::sleep(Duration::from_millis(2_700));
            proxy.set(Fault::None);
            [behind, waiting].map(|late| late.join().unwrap().status)
        })
    };
    // It tries again, because a busy machine may stall.
    eventually(|| "both are refused", || (answers() == [503, 503]).then_some(()));
}
