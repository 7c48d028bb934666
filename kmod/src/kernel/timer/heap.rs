// SPDX-License-Identifier: BSD-2-Clause

//! Nodes in the order of their keys: a queue, and a leftist heap beside the queue, both linked
//! through the nodes themselves.
//!
//! Timers mostly come in the order of their deadlines: each is later than all before, or earlier
//! than all. Such a node goes to an end of the queue, which is in order, in a few stores however
//! many nodes there are. A node whose key lies between goes into the heap.
//!
//! No node of the heap has a lesser key than its parent. A node's *rank* is the length of the way
//! down from the node by right children alone, and no right child has a greater rank than the left
//! child beside it. So a way by right children passes at most log2(n + 1) of n nodes. Each function
//! goes down such ways, and up again, in a loop: the cost of each call is bounded by log n.
//!
//! INVARIANT: a link leads to a node of the same heap or of its queue, and that node is there: see
//! [`Heap::insert`]. One thread at a time uses a heap and its nodes.

use core::cell::Cell;
use core::mem::swap;
use core::ops::Deref;
use core::ptr::NonNull;

/// A node's place in a heap or in its queue.
pub(super) struct Node {
    key: Cell<u64>,
    /// In the queue: the node before.
    parent: Cell<Option<Link>>,
    /// In the queue: the node behind.
    left: Cell<Option<Link>>,
    right: Cell<Option<Link>>,
    /// [`QUEUED`] in the queue.
    rank: Cell<u32>,
}

/// The rank of a node in the queue, which no node of a heap has.
const QUEUED: u32 = 0;

/// To a node that is in a heap.
#[derive(Clone, Copy)]
struct Link(NonNull<Node>);

impl Deref for Link {
    type Target = Node;

    #[inline(always)]
    fn deref(&self) -> &Node {
        // SAFETY: the INVARIANT of this file.
        unsafe { self.0.as_ref() }
    }
}

impl Node {
    /// Of no heap.
    pub(super) const fn new() -> Node {
        Node {
            key: Cell::new(0),
            parent: Cell::new(None),
            left: Cell::new(None),
            right: Cell::new(None),
            rank: Cell::new(1),
        }
    }

    /// What [`Heap::insert`] was last given.
    #[inline(always)]
    pub(super) fn key(&self) -> u64 {
        self.key.get()
    }

    /// Has the children in their order. Returns whether that has changed the rank.
    #[inline(always)]
    fn order_children(&self) -> bool {
        let rank = |child: Option<Link>| child.map_or(0, |child| child.rank.get());
        let (left, right) = (rank(self.left.get()), rank(self.right.get()));
        if left < right {
            self.left.swap(&self.right);
        }
        let new = left.min(right).wrapping_add(1);
        self.rank.replace(new) != new
    }
}

impl Link {
    #[inline(always)]
    fn set_left(self, child: Link) {
        self.left.set(Some(child));
        child.parent.set(Some(self));
    }

    #[inline(always)]
    fn set_right(self, child: Link) {
        self.right.set(Some(child));
        child.parent.set(Some(self));
    }
}

/// The nodes. The first is the root or the front of the queue.
pub(super) struct Heap {
    root: Cell<Option<Link>>,
    front: Cell<Option<Link>>,
    back: Cell<Option<Link>>,
}

/// The node with the lesser key.
#[inline(always)]
fn lesser(one: Option<Link>, other: Option<Link>) -> Option<Link> {
    match (one, other) {
        (Some(one), Some(other)) if other.key.get() < one.key.get() => Some(other),
        (None, other) => other,
        (one, _) => one,
    }
}

impl Heap {
    pub(super) const fn new() -> Heap {
        Heap {
            root: Cell::new(None),
            front: Cell::new(None),
            back: Cell::new(None),
        }
    }

    /// The node with the least key.
    #[inline(always)]
    pub(super) fn first(&self) -> Option<NonNull<Node>> {
        lesser(self.front.get(), self.root.get()).map(|first| first.0)
    }

    /// The node that would be the first without the first.
    #[inline(always)]
    pub(super) fn second(&self) -> Option<NonNull<Node>> {
        let (front, root) = (self.front.get(), self.root.get());
        let second = match (front, root) {
            (Some(front), root) if root.is_none_or(|root| front.key.get() <= root.key.get()) => {
                lesser(front.left.get(), root)
            }
            (front, Some(root)) => lesser(front, lesser(root.left.get(), root.right.get())),
            (_, None) => None,
        };
        second.map(|second| second.0)
    }

    /// Puts a node into the heap or into its queue.
    ///
    /// # Safety
    /// The node is in no heap. Until [`Heap::remove`], the node stays where it is, and `node` may
    /// be used.
    #[inline(always)]
    pub(super) unsafe fn insert(&self, node: NonNull<Node>, key: u64) {
        let new = Link(node);
        new.key.set(key);
        let (before, behind) = match (self.front.get(), self.back.get()) {
            (Some(front), _) if key < front.key.get() => (None, Some(front)),
            (_, back) if back.is_none_or(|back| back.key.get() <= key) => (back, None),
            _ => return self.insert_between(new),
        };
        new.rank.set(QUEUED);
        self.join(before, Some(new));
        self.join(Some(new), behind);
    }

    /// Has two nodes stand side by side in the queue. `None` is the end of the queue.
    #[inline(always)]
    fn join(&self, before: Option<Link>, behind: Option<Link>) {
        match &before {
            Some(before) => before.left.set(behind),
            None => self.front.set(behind),
        }
        match &behind {
            Some(behind) => behind.parent.set(before),
            None => self.back.set(before),
        }
    }

    /// Puts a node into the heap proper.
    #[inline(never)]
    fn insert_between(&self, new: Link) {
        new.left.set(None);
        new.right.set(None);
        new.rank.set(1);
        match self.root.get() {
            Some(root) if root.key.get() <= new.key.get() => below(root, new),
            root => {
                new.parent.set(None);
                if let Some(root) = root {
                    new.set_left(root);
                }
                self.root.set(Some(new));
            }
        }
    }

    /// Takes a node out of the heap or of its queue.
    ///
    /// # Safety
    /// The node is in this heap or in its queue.
    #[inline(always)]
    pub(super) unsafe fn remove(&self, node: NonNull<Node>) {
        let old = Link(node);
        if old.rank.get() == QUEUED {
            self.join(old.parent.get(), old.left.get());
        } else {
            self.remove_between(old);
        }
    }

    /// Takes a node out of the heap proper.
    #[inline(never)]
    fn remove_between(&self, old: Link) {
        let (parent, left, right) = (old.parent.get(), old.left.get(), old.right.get());
        // Without a left child there is no right child.
        let child = match (left, right) {
            (Some(left), Some(right)) => Some(merge(left, right)),
            _ => left,
        };
        if let Some(child) = child {
            child.parent.set(parent);
        }
        let Some(parent) = parent else {
            return self.root.set(child);
        };
        let side = match parent.left.get() {
            Some(left) if left.0 == old.0 => &parent.left,
            _ => &parent.right,
        };
        side.set(child);
        order_upwards(parent);
    }
}

/// Puts a node that has no children below `root`, whose key is not greater.
fn below(root: Link, new: Link) {
    let mut at = root;
    while let Some(right) = at.right.get() {
        if new.key.get() < right.key.get() {
            new.set_left(right);
            break;
        }
        at = right;
    }
    at.set_right(new);
    order_upwards(at);
}

/// A child of `from` has another rank, or is another.
#[inline(always)]
fn order_upwards(from: Link) {
    let mut next = Some(from);
    while let Some(at) = next {
        if !at.order_children() {
            break;
        }
        next = at.parent.get();
    }
}

/// Makes a tree of two. Its root has no parent yet.
fn merge(one: Link, other: Link) -> Link {
    let (mut at, mut rest) = (one, other);
    if rest.key.get() < at.key.get() {
        swap(&mut at, &mut rest);
    }
    let root = at;
    // The lesser of two roots keeps its left child, and below it on the right goes what the
    // greater root and its right child come to.
    while let Some(right) = at.right.get() {
        let mut next = right;
        if rest.key.get() < next.key.get() {
            swap(&mut next, &mut rest);
        }
        at.set_right(next);
        at = next;
    }
    at.set_right(rest);
    loop {
        at.order_children();
        match at.parent.get() {
            Some(parent) if at.0 != root.0 => at = parent,
            _ => return root,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::vec::Vec;

    use super::*;

    /// A heap with its nodes, and which keys should be in the heap.
    struct Bench {
        heap: Heap,
        nodes: Vec<NonNull<Node>>,
        keys: Vec<Option<u64>>,
    }

    impl Bench {
        fn new(nodes: usize) -> Bench {
            let node = |_| NonNull::from(Box::leak(Box::new(Node::new())));
            Bench {
                heap: Heap::new(),
                nodes: (0..nodes).map(node).collect(),
                keys: std::vec![None; nodes],
            }
        }

        fn insert(&mut self, n: usize, key: u64) {
            // SAFETY: the node is in no heap, and is freed with the bench.
            unsafe { self.heap.insert(self.nodes[n], key) };
            self.keys[n] = Some(key);
        }

        fn remove(&mut self, n: usize) {
            // SAFETY: the node is in the heap.
            unsafe { self.heap.remove(self.nodes[n]) };
            self.keys[n] = None;
        }

        /// Takes out the first node.
        fn pop(&mut self) -> Option<u64> {
            let first = self.heap.first()?;
            let n = self.nodes.iter().position(|node| *node == first).unwrap();
            let key = self.keys[n];
            self.remove(n);
            key
        }

        /// Panics if a node is not where it should be.
        fn check(&self) {
            let root = self.heap.root.get();
            assert!(root.is_none_or(|root| root.parent.get().is_none()));
            let mut ways: Vec<Link> = root.into_iter().collect();
            let mut found = self.check_queue();
            while let Some(at) = ways.pop() {
                found += 1;
                let n = self.nodes.iter().position(|node| *node == at.0).unwrap();
                assert_eq!(Some(at.key()), self.keys[n]);
                let mut ranks = [0; 2];
                for (rank, child) in ranks.iter_mut().zip([at.left.get(), at.right.get()]) {
                    let Some(child) = child else { continue };
                    assert_eq!(child.parent.get().map(|parent| parent.0), Some(at.0));
                    assert!(at.key() <= child.key());
                    *rank = child.rank.get();
                    ways.push(child);
                }
                assert!(ranks[0] >= ranks[1]);
                assert_eq!(at.rank.get(), ranks[1] + 1);
            }
            assert_eq!(found, self.keys.iter().flatten().count());
            let mut keys: Vec<_> = self.keys.iter().flatten().copied().collect();
            keys.sort_unstable();
            // SAFETY: the nodes are this bench's.
            let key = |node: NonNull<Node>| unsafe { node.as_ref() }.key();
            assert_eq!(self.heap.first().map(key), keys.first().copied());
            assert_eq!(self.heap.second().map(key), keys.get(1).copied());
        }

        /// [`Bench::check`] for the queue. Returns how many nodes are there.
        fn check_queue(&self) -> usize {
            let mut found = 0;
            let mut before: Option<Link> = None;
            let mut next = self.heap.front.get();
            while let Some(at) = next {
                found += 1;
                let n = self.nodes.iter().position(|node| *node == at.0).unwrap();
                assert_eq!(Some(at.key()), self.keys[n]);
                assert_eq!(at.rank.get(), QUEUED);
                assert_eq!(
                    at.parent.get().map(|node| node.0),
                    before.map(|node| node.0)
                );
                assert!(before.is_none_or(|before| before.key() <= at.key()));
                before = next;
                next = at.left.get();
            }
            let back = self.heap.back.get();
            assert_eq!(back.map(|node| node.0), before.map(|node| node.0));
            found
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            for node in &self.nodes {
                // SAFETY: from a Box, and nobody uses the heap any more.
                drop(unsafe { Box::from_raw(node.as_ptr()) });
            }
        }
    }

    /// Numbers in no order, the same in each run.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 1u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn nodes_leave_in_the_order_of_their_keys() {
        let sizes = if cfg!(miri) { 12 } else { 60 };
        let mut number = numbers();
        for size in 0..sizes {
            let mut bench = Bench::new(size);
            for n in 0..size {
                bench.insert(n, number(size as u64));
                bench.check();
            }
            let mut keys: Vec<_> = bench.keys.iter().copied().flatten().collect();
            keys.sort_unstable();
            for key in keys {
                assert_eq!(bench.pop(), Some(key));
                bench.check();
            }
            assert_eq!(bench.pop(), None);
        }
    }

    #[test]
    fn any_node_can_leave_and_come_back_with_another_key() {
        let (size, steps) = if cfg!(miri) { (12, 300) } else { (40, 10_000) };
        let mut bench = Bench::new(size);
        let mut number = numbers();
        for _ in 0..steps {
            let n = number(size as u64) as usize;
            match bench.keys[n] {
                Some(_) => bench.remove(n),
                None => bench.insert(n, number(50)),
            }
            bench.check();
        }
    }

    #[test]
    fn no_way_by_right_children_is_long_however_the_keys_come() {
        let size = if cfg!(miri) { 32 } else { 1024 };
        let orders: [fn(u64) -> u64; 3] = [|n| n, |n| 10_000 - n, |_| 0];
        for order in orders {
            let mut bench = Bench::new(size + 2);
            // The queue takes nothing between its ends.
            bench.insert(size, 0);
            bench.insert(size + 1, 20_000);
            for n in 0..size {
                bench.insert(n, 1 + order(n as u64));
            }
            // From the last, so that the ways up are the longest.
            for n in (0..size).rev().step_by(3) {
                bench.remove(n);
            }
            bench.check();
            let root = bench.heap.root.get().unwrap();
            assert!(root.rank.get() <= size.ilog2());
        }
    }

    #[test]
    fn nodes_that_come_in_order_or_against_it_never_enter_the_heap() {
        let mut bench = Bench::new(8);
        for (n, key) in [10, 10, 20, 30, 9, 8, 8, 40].into_iter().enumerate() {
            bench.insert(n, key);
            bench.check();
        }
        // The second 8 is not less than the front, and less than the back.
        assert_eq!(bench.heap.root.get().map(|root| root.key()), Some(8));
        let out: Vec<_> = core::iter::from_fn(|| bench.pop()).collect();
        assert_eq!(out, [8, 8, 9, 10, 10, 20, 30, 40]);
    }
}
