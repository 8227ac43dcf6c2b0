//! Every order of the steps of two workers, with a lease that expires at any point, compared with a
//! model.

use serde_json::{Value, json};

use crate::world::{Session, World, age, tests};

tests![every_order_of_two_workers_steps_ends_as_it_must];

/// What a worker does next, or what happens to the lease.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Acquire,
    Commit,
    Release,
    ReleaseWithMessage,
    Expire,
}

/// The answer that each step must have.
#[derive(Default)]
struct Model {
    /// The worker, and whether its lease is live.
    holder: Option<(usize, bool)>,
    answered_by: Option<usize>,
}

impl Model {
    fn take(&mut self, worker: usize, step: Step) -> &'static str {
        let holds = self.holder == Some((worker, true));
        match (step, self.answered_by, self.holder) {
            (Step::Expire, _, holder) => {
                self.holder = holder.map(|(worker, _)| (worker, false));
                ""
            }
            (Step::Acquire, None, Some((_, true))) if holds => "again",
            (Step::Acquire, None, Some((_, true))) => "held",
            (Step::Acquire, None, holder) => {
                self.holder = Some((worker, true));
                holder.map_or("new", |_| "takeover")
            }
            (Step::Commit, Some(by), _) if by == worker => "again",
            (Step::Acquire | Step::Commit, Some(_), _) => "duplicate",
            (Step::Commit, None, _) if holds => {
                self.answered_by = Some(worker);
                "new"
            }
            (Step::Release | Step::ReleaseWithMessage, answered_by, _) if holds => {
                self.holder = None;
                if step == Step::ReleaseWithMessage {
                    self.answered_by = answered_by.or(Some(worker));
                }
                "released"
            }
            (Step::Commit | Step::Release | Step::ReleaseWithMessage, ..) => "lost",
        }
    }
}

/// All orders in which the steps of these scripts can happen.
fn orders(scripts: &[&[Step]]) -> Vec<Vec<(usize, Step)>> {
    let firsts = (0..scripts.len()).filter(|number| !scripts[*number].is_empty());
    let all: Vec<_> = firsts
        .flat_map(|number| {
            let mut rest = scripts.to_vec();
            let (first, others) = rest[number].split_first().unwrap();
            rest[number] = others;
            let continued = orders(&rest).into_iter();
            continued.map(|order| [vec![(number, *first)], order].concat()).collect::<Vec<_>>()
        })
        .collect();
    if all.is_empty() { vec![Vec::new()] } else { all }
}

fn every_order_of_two_workers_steps_ends_as_it_must(world: &World) {
    const COMMITS: &[Step] = &[Step::Acquire, Step::Commit, Step::Release];
    const RELEASES: &[Step] = &[Step::Acquire, Step::ReleaseWithMessage];
    const TOKENS: [&str; 2] = ["00000000000000000001", "00000000000000000002"];
    let mut conn = world.database.connect();
    let mut count = 0;
    for scripts in [[COMMITS, COMMITS], [COMMITS, RELEASES], [RELEASES, RELEASES]] {
        for order in orders(&[scripts[0], scripts[1], &[Step::Expire]]) {
            count += 1;
            let (session, mut model) = (Session::new(), Model::default());
            for (at, (worker, step)) in order.iter().enumerate() {
                let expected = model.take(*worker, *step);
                let token = || TOKENS[*worker];
                let fields = |fields: Value| session.with(fields);
                let reply = match step {
                    Step::Expire => {
                        if model.holder.is_some() {
                            age(&mut conn, &session, 40);
                        }
                        continue;
                    }
                    Step::Acquire => world.service.post(
                        "/v1/acquire",
                        fields(json!({"owner_token": token(), "message_id": "m"})),
                    ),
                    Step::Commit => world.service.commit(&session, token(), "m"),
                    Step::Release => world.service.release(&session, token()),
                    Step::ReleaseWithMessage => world.service.release_with(&session, token(), "m"),
                };
                let told = match (&reply.json["how"], &reply.json["reason"]) {
                    (Value::String(how), _) => how,
                    (_, Value::String(reason)) => reason,
                    _ => "released",
                };
                assert_eq!(told, expected, "step {at} of {order:?}: {reply:?}");
                assert_eq!(reply.status == 200, !["held", "lost", "duplicate"].contains(&told));
            }
        }
    }
    assert_eq!(count, 140 + 60 + 30);
}
