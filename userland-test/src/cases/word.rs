// SPDX-License-Identifier: BSD-2-Clause

//! KQX_WORD: counting in memory that processes share.

use crate::case::case;
use crate::equal;
use crate::outcome::Outcome;
use crate::system::System;
use crate::tools::change::delete;
use crate::tools::queue::Queue;
use crate::tools::words::{Pad, WORD, leaves_nothing};

/// A producer counts in user space, kicks when the threshold is reached, and the delivery takes
/// the whole count.
#[case("word.counts")]
fn counts(sys: &dyn System) -> Outcome {
    leaves_nothing(sys, || {
        let (pad, queue) = (Pad::new(sys)?, Queue::new(sys)?);
        queue.apply(pad.edge(5, 3))?;
        for kicks in [false, false, true, false] {
            equal!(pad.count(5, 1)?, kicks);
        }
        equal!(queue.take()?.data, 4);
        equal!(pad.counted(5), 0);
        queue.quiet()?;
        equal!(pad.count(5, 2)?, false);
        equal!(pad.count(5, 2)?, true);
        equal!(queue.take()?.data, 4);
        queue.apply(delete(WORD))?;
        equal!(pad.count(5, 10)?, false);
        Ok(())
    })
}
