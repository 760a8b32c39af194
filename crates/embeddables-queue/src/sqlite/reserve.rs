//! The reserve: room that is taken in good times, so that settling goes on when the disk is full.
//!
//! # Invariants
//! 1. While it is released, nothing is appended.
//! 2. It is made again only when there is room for it twice, so that the disk does not fill up again at once.

use std::path::PathBuf;

use rustix::fs::FallocateFlags;

use super::volume::{Paths, open_private, remove_if_there, room};

/// Largest reserve.
const MAX_RESERVE_BYTES: u64 = 16 << 20;
/// A reserve below this helps nobody.
const MIN_RESERVE_BYTES: u64 = 64 << 10;
/// With less than this free, a failed write is taken for want of room.
const NO_ROOM_BYTES: u64 = 64 << 10;

/// The reserve file.
#[derive(Debug)]
pub(super) struct Reserve {
    dir: PathBuf,
    path: PathBuf,
    size_bytes: u64,
    released: bool,
}

impl Reserve {
    /// Makes the reserve, or finds it; where there is no room for it the store begins as full.
    pub(super) fn open(paths: &Paths, max_bytes: u64) -> Self {
        let path = paths.reserve();
        let present = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let free_bytes = room(&paths.dir).map_or(u64::MAX, |(_, free)| free.saturating_add(present));
        let size_bytes = MAX_RESERVE_BYTES
            .min(max_bytes / 64)
            .min(free_bytes / 8)
            .max(MIN_RESERVE_BYTES);
        let mut reserve = Self {
            dir: paths.dir.clone(),
            path,
            size_bytes,
            released: false,
        };
        if present < size_bytes {
            reserve.released = !reserve.allocate();
        }
        reserve
    }

    /// Whether the room was given up for settling.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    /// Gives the room up.
    pub(super) fn release(&mut self) {
        if self.released {
            return;
        }
        self.released = true;
        tracing::warn!(
            size_bytes = self.size_bytes,
            "disk full: the reserve is released for settling"
        );
        if let Err(error) = remove_if_there(&self.path) {
            tracing::error!(%error, "the reserve could not be released");
        }
    }

    /// Makes the reserve again where there is room for it twice; returns whether appends may go on.
    pub(super) fn restore(&mut self) -> bool {
        if self.released && self.free_bytes() >= 2 * self.size_bytes && self.allocate() {
            self.released = false;
            tracing::info!("there is room again: the reserve is made and appends go on");
        }
        !self.released
    }

    /// Whether the volume has any room worth the name.
    pub(super) fn room_left(&self) -> bool {
        self.free_bytes() > NO_ROOM_BYTES
    }

    fn free_bytes(&self) -> u64 {
        match room(&self.dir) {
            Ok((_, free_bytes)) => free_bytes,
            Err(error) => {
                tracing::warn!(%error, "the volume's room could not be told");
                u64::MAX
            }
        }
    }

    fn allocate(&self) -> bool {
        let made = open_private(&self.path).and_then(|file| {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.size_bytes).map_err(Into::into)
        });
        match made {
            Ok(()) => true,
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                // Settling is then as safe as the disk is roomy.
                tracing::warn!("the volume cannot preallocate: there is no reserve");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the reserve could not be made");
                if let Err(error) = remove_if_there(&self.path) {
                    tracing::warn!(%error, "a part of the reserve was left behind");
                }
                false
            }
        }
    }
}
