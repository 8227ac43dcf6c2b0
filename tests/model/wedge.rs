//! From every state, a free session can be acquired.

use super::plan::{Plan, Request, TTL_US, Told, Verb};
use super::sql::{Message, Session};
use super::step::{packet, receive};
use super::world::{Config, State};

impl Config {
    /// Whether some session cannot be acquired once everything in the table has expired.
    pub fn is_wedged(&self, state: &State) -> bool {
        let sessions = 0..u8::try_from(state.fencing.len()).expect("few sessions");
        sessions.into_iter().any(|session| !self.can_be_acquired(state, session))
    }

    fn can_be_acquired(&self, state: &State, session: Session) -> bool {
        /// A worker and a message that nobody else has.
        const OTHER: (u8, Message) = (99, 99);
        /// More than any acquire needs.
        const PACKETS_MAX: u32 = 10;
        let verb = Verb::Acquire { reads_first: false };
        let (owner, message) = (OTHER.0, Some(OTHER.1));
        let request = Request { message, ..Request::new(verb, session, owner) };
        let mut alone = State { workers: vec![], flights: vec![], ..state.clone() };
        alone.table.now_us += 2 * TTL_US;
        self.start(&mut alone, 0, &[request]);
        for _ in 0..PACKETS_MAX {
            match &*alone.flights[0].plan() {
                Plan::Answer(told) => return matches!(told[0], Told::Granted { .. }),
                Plan::Send(_) => {
                    let sent_us = alone.table.server_us(self.rules);
                    alone.flights[0].line = packet(sent_us);
                    while !alone.flights[0].is_run() {
                        if self.run_next(&mut alone, 0, false).is_none() {
                            return false;
                        }
                    }
                    if receive(&mut alone, 0, self.rules).is_none() {
                        return false;
                    }
                }
            }
        }
        false
    }
}
