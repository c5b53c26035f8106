//! One answer of the router to one thread that waits for it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::thread::Bell;

/// Both ends of an answer that is to come.
pub(crate) fn reply<T>() -> (Reply<T>, Answer<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Open),
        bell: Bell::of_light_sleep(),
    });
    (Reply(Arc::clone(&shared)), Answer(shared))
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    bell: Bell,
}

#[derive(Debug)]
enum State<T> {
    Open,
    Given(T),
    /// Whoever was to answer is gone.
    Dropped,
}

/// The answering end. Dropping it without an answer is an answer too.
#[derive(Debug)]
pub(crate) struct Reply<T>(Arc<Shared<T>>);

/// The waiting end.
#[derive(Debug)]
pub(crate) struct Answer<T>(Arc<Shared<T>>);

impl<T> Reply<T> {
    /// Answers. Nothing happens if nobody waits any more.
    pub(crate) fn give(self, answer: T) {
        *self.0.state.lock() = State::Given(answer);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        {
            let mut state = self.0.state.lock();
            if matches!(*state, State::Open) {
                *state = State::Dropped;
            }
        }
        self.0.bell.ring();
    }
}

impl<T> Answer<T> {
    /// Looks without waiting: `None`: nothing yet; `Some(None)`: there will be no answer.
    #[cfg(test)]
    pub(crate) fn look(&self) -> Option<Option<T>> {
        match std::mem::replace(&mut *self.0.state.lock(), State::Open) {
            State::Given(answer) => Some(Some(answer)),
            State::Dropped => Some(None),
            State::Open => None,
        }
    }

    /// The answer; `None` if there will be none.
    ///
    /// # Blocking
    /// Until it is there.
    pub(crate) fn wait(self) -> Option<T> {
        loop {
            match std::mem::replace(&mut *self.0.state.lock(), State::Open) {
                State::Given(answer) => return Some(answer),
                State::Dropped => return None,
                State::Open => {}
            }
            // BLOCKS: until the reply is given or dropped.
            self.0
                .bell
                .wait(None, || !matches!(*self.0.state.lock(), State::Open));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_arrives_and_its_absence_too() {
        for answer in [Some(7), None] {
            let (to_give, to_take) = reply();
            let waiting = crate::thread::spawn("asker", 0, move || to_take.wait()).unwrap();
            match answer {
                Some(answer) => to_give.give(answer),
                None => drop(to_give),
            }
            assert_eq!(waiting.join().unwrap(), answer);
        }
    }
}
