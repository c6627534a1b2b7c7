//! A small map that forgets what was used longest ago once the weights of its entries exceed a budget.
//!
//! Evicting looks at every entry: the depot's caches hold tens to a few thousand, each dear to make anew.

use std::collections::HashMap;
use std::hash::Hash;

/// The map. Values are handed out as clones, so they are `Arc`s or small.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    budget: u64,
    weight: u64,
    clock: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    weight: u64,
    used: u64,
}

impl<K: Eq + Hash + Clone, V: Clone> Lru<K, V> {
    /// Makes an empty map that holds entries of at most `budget` together.
    pub(super) fn new(budget: u64) -> Self {
        Self { entries: HashMap::new(), budget, weight: 0, clock: 0 }
    }

    /// Returns the value and counts it as used now.
    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    /// Keeps the value; one heavier than the whole budget is not kept at all.
    pub(super) fn insert(&mut self, key: K, value: V, weight: u64) {
        self.remove(&key);
        if weight > self.budget {
            return;
        }
        self.clock += 1;
        self.weight += weight;
        self.entries.insert(key, Entry { value, weight, used: self.clock });
        self.evict();
    }

    /// Holds entries of at most `budget` together from now on.
    pub(super) fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
        self.evict();
    }

    fn evict(&mut self) {
        while self.weight > self.budget {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
    }

    /// Forgets the values that `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let weight = &mut self.weight;
        self.entries.retain(|key, entry| {
            let stays = keep(key, &entry.value);
            if !stays {
                *weight -= entry.weight;
            }
            stays
        });
    }

    /// Forgets the value.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.weight -= entry.weight;
        Some(entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_what_was_used_longest_ago() {
        let mut lru = Lru::new(10);
        lru.insert("a", 1, 4);
        lru.insert("b", 2, 4);
        assert_eq!(lru.get(&"a"), Some(1));
        lru.insert("c", 3, 4);
        assert_eq!((lru.get(&"a"), lru.get(&"b"), lru.get(&"c")), (Some(1), None, Some(3)));
        lru.insert("huge", 4, 11);
        assert_eq!((lru.get(&"huge"), lru.get(&"a")), (None, Some(1)));
        lru.insert("a", 5, 1);
        assert_eq!((lru.get(&"a"), lru.weight), (Some(5), 5));
        lru.remove(&"a");
        assert_eq!((lru.get(&"a"), lru.weight), (None, 4));
        lru.insert("d", 6, 3);
        lru.retain(|key, value| *key != "d" || *value != 6);
        assert_eq!((lru.get(&"d"), lru.get(&"c"), lru.weight), (None, Some(3), 4));
        lru.insert("e", 7, 4);
        lru.set_budget(7);
        assert_eq!((lru.get(&"c"), lru.get(&"e"), lru.weight), (None, Some(7), 4));
    }
}
