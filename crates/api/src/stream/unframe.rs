//! Taking the 8-byte headers out of framed output, for clients that get bare bytes.

use bytes::Bytes;

const HEADER: usize = 8;

/// Where in the frames the stream is.
#[derive(Debug, Default)]
pub struct Unframe {
    header: Vec<u8>,
    left: usize,
}

impl Unframe {
    /// The data in the next piece of a framed stream.
    pub fn push(&mut self, mut piece: &[u8]) -> Bytes {
        let mut data = Vec::with_capacity(piece.len());
        while !piece.is_empty() {
            if self.left == 0 {
                let (head, rest) = piece.split_at(piece.len().min(HEADER - self.header.len()));
                self.header.extend_from_slice(head);
                piece = rest;
                if let [_, _, _, _, a, b, c, d] = self.header[..] {
                    self.left = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.header.clear();
                }
                continue;
            }
            let (now, rest) = piece.split_at(piece.len().min(self.left));
            data.extend_from_slice(now);
            self.left -= now.len();
            piece = rest;
        }
        data.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{FrameKind, frame};

    #[test]
    fn frames_cut_anywhere() {
        let mut framed = frame(FrameKind::Stdout, b"hello ").to_vec();
        framed.extend_from_slice(&frame(FrameKind::Stderr, b""));
        framed.extend_from_slice(&frame(FrameKind::Stderr, b"world"));
        for size in 1..framed.len() {
            let mut unframe = Unframe::default();
            let data: Vec<u8> = framed
                .chunks(size)
                .flat_map(|piece| unframe.push(piece))
                .collect();
            assert_eq!(data, b"hello world");
        }
    }
}
