//! Tars made byte by byte, so that they can say what no honest program would write.

pub struct Tar(Vec<u8>);

pub struct Header<'a> {
    pub typeflag: u8,
    pub name: &'a [u8],
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: u64,
    pub device: (u32, u32),
}

impl Default for Header<'_> {
    fn default() -> Self {
        Header {
            typeflag: b'0',
            name: b"",
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 1_700_000_000,
            device: (0, 0),
        }
    }
}

impl Tar {
    pub fn new() -> Tar {
        Tar(Vec::new())
    }

    pub fn header(&mut self, header: &Header<'_>) -> &mut Tar {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, header.name);
        put(100, format!("{:07o}", header.mode).as_bytes());
        put(108, format!("{:07o}", header.uid).as_bytes());
        put(116, format!("{:07o}", header.gid).as_bytes());
        put(124, format!("{:011o}", header.size).as_bytes());
        put(136, format!("{:011o}", header.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[header.typeflag]);
        put(157, header.link);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", header.device.0).as_bytes());
        put(337, format!("{:07o}", header.device.1).as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self
    }

    pub fn content(&mut self, content: &[u8]) -> &mut Tar {
        self.0.extend(content);
        let padded = self.0.len().div_ceil(512) * 512;
        self.0.resize(padded, 0);
        self
    }

    pub fn file(&mut self, name: &str, content: &[u8]) -> &mut Tar {
        self.header(&Header {
            name: name.as_bytes(),
            size: content.len() as u64,
            ..Header::default()
        })
        .content(content)
    }

    pub fn directory(&mut self, name: &str, mode: u32) -> &mut Tar {
        self.header(&Header {
            typeflag: b'5',
            name: name.as_bytes(),
            mode,
            ..Header::default()
        })
    }

    pub fn symlink(&mut self, name: &str, target: &str) -> &mut Tar {
        self.link(b'2', name, target)
    }

    pub fn hard_link(&mut self, name: &str, target: &str) -> &mut Tar {
        self.link(b'1', name, target)
    }

    fn link(&mut self, typeflag: u8, name: &str, target: &str) -> &mut Tar {
        self.header(&Header {
            typeflag,
            name: name.as_bytes(),
            link: target.as_bytes(),
            ..Header::default()
        })
    }

    /// An extended header for the entry after it.
    pub fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() > length {
                length += 1;
            }
            data.extend(format!("{length} {key}=").as_bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        self.header(&Header {
            typeflag: b'x',
            name: b"PaxHeaders/x",
            size: data.len() as u64,
            ..Header::default()
        })
        .content(&data)
    }

    /// With the end mark.
    pub fn finish(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.extend([0; 1024]);
        bytes
    }
}
