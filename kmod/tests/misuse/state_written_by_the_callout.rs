//! The callout's handler cannot write what is in the knote: a scan may be copying it.

use kqx_filters::Words;
use kqx_kmod::kernel::knote::{Expiring, Knote};

fn expire(mut kn: Knote<'_, Expiring>) {
    kn.set_words(Words::default());
}

fn main() {}
