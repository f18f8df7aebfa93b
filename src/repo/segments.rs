//! Opened segments of packs, the recently used ones, shared by all threads.
//!
//! Small records that follow each other in a pack share a segment; without this each would open it
//! again. Two generations stand in for exact recency: simple, and as good here.

use crate::format::container::SEGMENT_BYTES;
use crate::id::PackId;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Segments of the younger generation before it becomes the older one: 8 MiB each at most.
const GENERATION_SEGMENTS: usize = 128;

type Place = (PackId, u64);

/// Opened segments by pack and number.
#[derive(Default)]
pub(super) struct SegmentCache {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Place, Arc<[u8]>>,
    old: HashMap<Place, Arc<[u8]>>,
}

impl SegmentCache {
    /// Returns a segment if it is here.
    pub(super) fn get(&self, pack: &PackId, segment: u64) -> Option<Arc<[u8]>> {
        let mut generations = self.lock();
        let place = (*pack, segment);
        if let Some(plain) = generations.young.get(&place) {
            return Some(Arc::clone(plain));
        }
        let plain = generations.old.remove(&place)?;
        generations.add(place, Arc::clone(&plain));
        Some(plain)
    }

    /// Adds consecutive segments beginning with this one and returns it.
    pub(super) fn put(&self, pack: &PackId, segment: u64, plain: &[u8]) -> Arc<[u8]> {
        let segments: Vec<Arc<[u8]>> = plain.chunks(SEGMENT_BYTES).map(Arc::from).collect();
        let mut generations = self.lock();
        for (number, plain) in (segment..).zip(&segments) {
            generations.add((*pack, number), Arc::clone(plain));
        }
        segments.into_iter().next().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn add(&mut self, place: Place, plain: Arc<[u8]>) {
        if self.young.len() >= GENERATION_SEGMENTS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(place, plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recently_used_segments_stay_and_the_number_is_bounded() {
        let cache = SegmentCache::default();
        let pack = PackId([1; 32]);
        for segment in 0..1000 {
            cache.put(&pack, segment, &[segment as u8]);
            assert!(
                cache.get(&pack, 0).is_some_and(|plain| *plain == [0]),
                "{segment}"
            );
        }

        let generations = cache.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_SEGMENTS);
    }
}
