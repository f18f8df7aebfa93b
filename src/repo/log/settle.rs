//! Making sure that what was read survives power loss: seen, synced, seen again.
//!
//! Nobody puts a slot before the one below is settled, so a slot whose entry is valid proves all
//! below it, and only the last valid one must be seen again. Void entries after it prove nothing:
//! it may be this reader's view that is wrong, so each is looked at again.

use crate::error::Result;
use crate::format::checkpoint::State;
use crate::repo::log::fold;
use crate::repo::log::step::Machine;
use crate::repo::log::step::Reply;
use crate::repo::log::step::Request;
use crate::repo::log::step::Step;
use crate::store::Folder;
use std::sync::Arc;

/// Settles a state. The output is the settled state, or `None` if it is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Settle {
    state: Arc<State>,
    next: u64,
}

impl Settle {
    pub(crate) fn new(state: Arc<State>) -> Settle {
        let next = state.read.proved.max(state.read.settled + 1);
        Settle { state, next }
    }
}

impl Machine for Settle {
    type Output = Option<Arc<State>>;

    fn step(&mut self, reply: Option<Reply>) -> Result<Step<Option<Arc<State>>>> {
        match reply {
            None if self.state.position <= self.state.read.settled => {
                return Ok(Step::Done(Some(self.state.clone())));
            }
            // Order: what a later slot is built on, a drop that a pack is deleted for, and a state
            // that is remembered must be durable before.
            None => return Ok(Step::Ask(Request::Sync(Folder::Log))),
            Some(Reply::Done) => {}
            Some(Reply::Slot(slot)) => {
                let before = self.state.hash_at(self.next - 1);
                let again = slot.zip(before);
                let again = again.map(|(slot, before)| fold::next_hash(before, &slot.object_hash));
                if again.is_none() || again != self.state.hash_at(self.next) {
                    return Ok(Step::Done(None));
                }
                self.next += 1;
            }
            Some(reply) => unreachable!("{reply:?} is not what settling asks for"),
        }
        if self.next <= self.state.position {
            return Ok(Step::Ask(Request::GetSlot(self.next)));
        }
        let mut settled = State::clone(&self.state);
        settled.read.settled = settled.position;
        Ok(Step::Done(Some(Arc::new(settled))))
    }
}
