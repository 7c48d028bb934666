// SPDX-License-Identifier: BSD-2-Clause

//! Typed events of kevent(2).

use crate::abi::{self, KQX_COUNTER, KQX_GATE, KQX_TIMER, KQX_WORD};
use crate::counter::CounterEvent;
use crate::event::{EV_ERROR, EVFILT_TIMER, EVFILT_USER, Kevent};
use crate::gate::GateEvent;
use crate::timer::TimerEvent;
use crate::word::WordEvent;

/// An event of a kqueue.
///
/// ```no_run
/// # let kq = kqx::Kqueue::new()?;
/// use kqx::Event;
///
/// match kq.wait(None)? {
///     Some(Event::Counter(event)) => println!("{} jobs", event.count),
///     Some(Event::Timer(event)) => println!("{} expirations", event.expirations),
///     Some(other) => println!("{other:?}"),
///     None => {}
/// }
/// # Ok::<(), kqx::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A counter is due.
    Counter(CounterEvent),
    /// A timer has expired.
    Timer(TimerEvent),
    /// A gate was triggered.
    Gate(GateEvent),
    /// A word is due.
    Word(WordEvent),
    /// A change that was made with [`Kqueue::kevent`](crate::Kqueue::kevent) was refused.
    /// The errno is in `data`. The other methods of this crate return their errors instead.
    Refused(Kevent),
    /// An event of another filter.
    Other(Kevent),
}

impl Event {
    /// The typed form of `event`. `filter` is the family's number.
    pub(crate) fn decode(event: &Kevent, filter: i16) -> Event {
        if event.flags & EV_ERROR != 0 {
            return Event::Refused(*event);
        }
        // A fallback registration has the same ident as with the module.
        let ours = |fallback| event.filter == filter || event.filter == fallback;
        match abi::member(event.ident) {
            KQX_COUNTER if ours(EVFILT_USER) => Event::Counter(CounterEvent::decode(event)),
            KQX_TIMER if ours(EVFILT_TIMER) => Event::Timer(TimerEvent::decode(event)),
            KQX_GATE if event.filter == filter => Event::Gate(GateEvent::decode(event)),
            KQX_WORD if ours(EVFILT_USER) => Event::Word(WordEvent::decode(event)),
            _ => Event::Other(*event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::EVFILT_KQX;

    fn event(filter: i16, member: u8) -> Kevent {
        Kevent {
            ident: abi::ident(member, 7),
            filter,
            ..Kevent::default()
        }
    }

    #[test]
    fn the_member_byte_tells_the_members_apart() {
        let counter = Event::decode(&event(EVFILT_KQX, KQX_COUNTER), EVFILT_KQX);
        assert!(matches!(counter, Event::Counter(event) if event.id == 7));
        let timer = Event::decode(&event(EVFILT_KQX, KQX_TIMER), EVFILT_KQX);
        assert!(matches!(timer, Event::Timer(event) if event.id == 7));
        let gate = Event::decode(&event(EVFILT_KQX, KQX_GATE), EVFILT_KQX);
        assert!(matches!(gate, Event::Gate(event) if event.id == 7));
        let word = Event::decode(&event(EVFILT_KQX, KQX_WORD), EVFILT_KQX);
        assert!(matches!(word, Event::Word(event) if event.id == 7 && !event.fallback));
    }

    #[test]
    fn the_family_is_where_the_module_says_it_is() {
        let moved = event(-15, KQX_COUNTER);
        assert!(matches!(Event::decode(&moved, -15), Event::Counter(_)));
        assert_eq!(Event::decode(&moved, EVFILT_KQX), Event::Other(moved));
    }

    #[test]
    fn what_was_fallen_back_to_is_still_a_counter_a_timer_or_a_word() {
        let user = event(EVFILT_USER, KQX_COUNTER);
        assert!(matches!(
            Event::decode(&user, EVFILT_KQX),
            Event::Counter(event) if event.fallback
        ));
        let timer = event(EVFILT_TIMER, KQX_TIMER);
        assert!(matches!(
            Event::decode(&timer, EVFILT_KQX),
            Event::Timer(event) if event.fallback
        ));
        let word = event(EVFILT_USER, KQX_WORD);
        assert!(matches!(
            Event::decode(&word, EVFILT_KQX),
            Event::Word(event) if event.fallback
        ));
    }

    #[test]
    fn other_filters_events_come_through_as_they_are() {
        for other in [
            event(EVFILT_USER, 0),
            event(EVFILT_USER, KQX_GATE),
            event(EVFILT_TIMER, KQX_COUNTER),
        ] {
            assert_eq!(Event::decode(&other, EVFILT_KQX), Event::Other(other));
        }
    }

    #[test]
    fn a_refused_change_is_no_delivery() {
        let refused = Kevent {
            flags: EV_ERROR,
            data: 22,
            ..event(EVFILT_KQX, KQX_COUNTER)
        };
        assert_eq!(Event::decode(&refused, EVFILT_KQX), Event::Refused(refused));
    }
}
