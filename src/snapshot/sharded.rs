//! A persistent map: changing a few entries of a large map copies only the shards they are in.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{Equivalent, HashMap};

/// Copying 100,000 entries takes over a millisecond; copying one of 256 shards of them takes microseconds.
const SHARDS: usize = 256;

type Shard<K, V> = HashMap<K, V, FixedState>;

/// An immutable map whose versions share what they have in common.
#[derive(Debug)]
pub struct Sharded<K, V> {
    shards: Box<[Arc<Shard<K, V>>]>,
    len: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    pub fn new() -> Self {
        let empty = Arc::new(Shard::default());
        Self {
            shards: vec![empty; SHARDS].into(),
            len: 0,
        }
    }

    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<&V> {
        self.shards[shard_of(key)].get(key)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the map with each key set to its value, or removed.
    pub fn with(&self, changes: impl IntoIterator<Item = (K, Option<V>)>) -> Self {
        let mut shards = self.shards.clone();
        let mut len = self.len;
        for (key, value) in changes {
            // Copies the shard the first time, since the old map holds it too.
            let shard = Arc::make_mut(&mut shards[shard_of(&key)]);
            len -= shard.len();
            match value {
                Some(value) => shard.insert(key, value),
                None => shard.remove(&key),
            };
            len += shard.len();
        }
        Self { shards, len }
    }
}

fn shard_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    // The low bits place entries inside a shard's table; take others here.
    (FixedState::with_seed(0).hash_one(key) >> 48) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_shares_the_other_shards_and_leaves_the_old_map() {
        let old = Sharded::new().with((0..10_000).map(|n: u32| (n, Some(n))));
        let new = old.with([(3, Some(33)), (4, None), (10_001, Some(1))]);
        assert_eq!((old.len(), new.len()), (10_000, 10_000));
        assert_eq!(
            (old.get(&3), new.get(&3), new.get(&4), old.get(&4)),
            (Some(&3), Some(&33), None, Some(&4))
        );
        let shared = old
            .shards
            .iter()
            .zip(&new.shards)
            .filter(|(a, b)| Arc::ptr_eq(a, b))
            .count();
        assert!(shared >= SHARDS - 3, "{shared}");
    }
}
