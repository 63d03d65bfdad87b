//! Reading the text of `/proc`: pure functions over bytes, tested with captured text on any platform.
//!
//! They take what is there and leave out what is not: a missing line, a number that does not parse or a last
//! line without its line feed (the buffer ended inside it) is `None`, not a guess.

/// The figures of `/proc/self/status` that a sample takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `VmRSS`, bytes.
    pub rss_bytes: Option<u64>,
    /// `RssAnon` (Linux >= 4.5), bytes.
    pub rss_anon_bytes: Option<u64>,
    /// `VmHWM`, bytes.
    pub rss_peak_bytes: Option<u64>,
    /// `VmSize`, bytes.
    pub address_space_bytes: Option<u64>,
    /// `Threads`.
    pub threads: Option<u64>,
}

/// Reads `/proc/self/status`.
pub fn status(text: &[u8]) -> Status {
    let mut status = Status::default();
    for line in complete_lines(text) {
        let Some((key, value)) = split_once(line, b':') else { continue };
        match key {
            b"VmSize" => status.address_space_bytes = kilobytes(value),
            b"VmHWM" => status.rss_peak_bytes = kilobytes(value),
            b"VmRSS" => status.rss_bytes = kilobytes(value),
            b"RssAnon" => status.rss_anon_bytes = kilobytes(value),
            b"Threads" => {
                status.threads = decimal(value.trim_ascii());
                // The lines after it are masks that grow with the machine.
                break;
            }
            _ => {}
        }
    }
    status
}

/// `MemTotal` and `MemAvailable` (Linux >= 3.14) of `/proc/meminfo`, bytes.
pub fn meminfo(text: &[u8]) -> (Option<u64>, Option<u64>) {
    let (mut total, mut available) = (None, None);
    for line in complete_lines(text) {
        match split_once(line, b':') {
            Some((b"MemTotal", value)) => total = kilobytes(value),
            Some((b"MemAvailable", value)) => {
                available = kilobytes(value);
                break;
            }
            _ => {}
        }
    }
    (total, available)
}

/// `some avg10` of a PSI file (`/proc/pressure/memory`, `memory.pressure`), percent.
pub fn pressure_some_avg10(text: &[u8]) -> Option<f64> {
    let line = complete_lines(text).find_map(|line| line.strip_prefix(b"some "))?;
    let word =
        line.split(|&b| b == b' ').find_map(|word| word.strip_prefix(b"avg10=".as_slice()))?;
    let percent: f64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

/// The value of a `key value` line, as in `memory.stat`.
pub fn flat_value(text: &[u8], key: &[u8]) -> Option<u64> {
    complete_lines(text)
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(b" "))
        .and_then(decimal)
}

/// A number in decimal digits and nothing else.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// One socket of `/proc/net/tcp` or `tcp6`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Port of this end.
    pub local_port: u16,
    /// Address of the other end.
    pub remote: std::net::SocketAddr,
    /// State, as `netstat` names it.
    pub state: &'static str,
    /// Inode: what `/proc/self/fd/N` shows as `socket:[inode]`.
    pub inode: u64,
}

/// Reads one line of `/proc/net/tcp` or `/proc/net/tcp6`; the heading line is `None`.
pub fn tcp_socket(line: &str) -> Option<TcpSocket> {
    let mut words = line.split_ascii_whitespace();
    let _slot = words.next()?;
    let local = socket_address(words.next()?)?;
    let remote = socket_address(words.next()?)?;
    let state = match u8::from_str_radix(words.next()?, 16).ok()? {
        1 => "ESTABLISHED",
        2 => "SYN_SENT",
        3 => "SYN_RECV",
        4 => "FIN_WAIT1",
        5 => "FIN_WAIT2",
        6 => "TIME_WAIT",
        7 => "CLOSE",
        8 => "CLOSE_WAIT",
        9 => "LAST_ACK",
        10 => "LISTEN",
        11 => "CLOSING",
        _ => "UNKNOWN",
    };
    // tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
    let inode = words.nth(5)?.parse().ok()?;
    Some(TcpSocket { local_port: local.port(), remote, state, inode })
}

/// `0100007F:1F90`: the kernel prints each 32-bit word of the address in the machine's byte order.
fn socket_address(text: &str) -> Option<std::net::SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let hex = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => std::net::IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0u8; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at)?);
            }
            std::net::Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(std::net::SocketAddr::new(ip, port))
}

/// Lines that end in a line feed, without it.
fn complete_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = memchr::memrchr(b'\n', text).unwrap_or(0);
    text.get(..end).unwrap_or_default().split(|&b| b == b'\n')
}

fn split_once(line: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, line)?;
    Some((line.get(..at)?, line.get(at + 1..)?))
}

/// `   1592 kB` in bytes; the kernel's kB is 1024 bytes.
fn kilobytes(value: &[u8]) -> Option<u64> {
    decimal(value.trim_ascii().strip_suffix(b" kB")?)?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &[u8] =
        b"Name:\tnode\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t4711\nGroups:\t \n\
        VmPeak:\t 1063060 kB\nVmSize:\t 1063056 kB\nVmLck:\t       0 kB\nVmHWM:\t   61592 kB\n\
        VmRSS:\t   51592 kB\nRssAnon:\t   10112 kB\nRssFile:\t   41480 kB\nThreads:\t11\n\
        SigQ:\t0/96365\nCpus_allowed:\t3\n";

    #[test]
    fn status_gives_bytes_and_threads() {
        assert_eq!(
            status(STATUS),
            Status {
                rss_bytes: Some(51_592 << 10),
                rss_anon_bytes: Some(10_112 << 10),
                rss_peak_bytes: Some(61_592 << 10),
                address_space_bytes: Some(1_063_056 << 10),
                threads: Some(11),
            }
        );
    }

    #[test]
    fn status_cut_anywhere_never_gives_a_shorter_number() {
        let whole = status(STATUS);
        for end in 0..STATUS.len() {
            let cut = status(&STATUS[..end]);
            for (got, want) in [
                (cut.rss_bytes, whole.rss_bytes),
                (cut.rss_anon_bytes, whole.rss_anon_bytes),
                (cut.rss_peak_bytes, whole.rss_peak_bytes),
                (cut.address_space_bytes, whole.address_space_bytes),
                (cut.threads, whole.threads),
            ] {
                assert!(got.is_none() || got == want, "cut at {end}: {got:?}");
            }
        }
    }

    #[test]
    fn status_of_a_kernel_without_rss_anon_leaves_it_out() {
        let old = status(b"VmRSS:\t 100 kB\nThreads:\t1\n");
        assert_eq!(
            (old.rss_bytes, old.rss_anon_bytes, old.threads),
            (Some(102_400), None, Some(1))
        );
    }

    #[test]
    fn odd_numbers_are_absent() {
        let odd = b"VmRSS:\t-5 kB\nVmHWM:\t 99999999999999999999 kB\nVmSize:\t 5 MB\nRssAnon:\t kB\nThreads:\tx\n";
        assert_eq!(status(odd), Status::default());
        assert_eq!(status(b"VmSize:\t 18446744073709551615 kB\n").address_space_bytes, None);
    }

    #[test]
    fn meminfo_needs_no_mem_available() {
        assert_eq!(
            meminfo(b"MemTotal:       24684096 kB\nMemFree: 1 kB\nMemAvailable:   24316248 kB\n"),
            (Some(24_684_096 << 10), Some(24_316_248 << 10))
        );
        assert_eq!(meminfo(b"MemTotal: 16 kB\nMemFree: 1 kB\n"), (Some(16 << 10), None));
        assert_eq!(meminfo(b"MemTotal: 16 k"), (None, None));
    }

    #[test]
    fn pressure_reads_the_some_line() {
        let text = b"some avg10=1.53 avg60=0.20 avg300=0.00 total=7\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(pressure_some_avg10(text), Some(1.53));
        for odd in
            [&b""[..], b"some\n", b"some avg60=1.0\n", b"some avg10=nan\n", b"some avg10=1.5"]
        {
            assert_eq!(pressure_some_avg10(odd), None, "{}", odd.escape_ascii());
        }
    }

    #[test]
    fn flat_values_match_whole_keys() {
        let text =
            b"inactive_file_x 1\nxinactive_file 2\ninactive_file 4096\ntotal_inactive_file 8192\n";
        assert_eq!(flat_value(text, b"inactive_file"), Some(4096));
        assert_eq!(flat_value(text, b"total_inactive_file"), Some(8192));
        assert_eq!(flat_value(text, b"active_file"), None);
        assert_eq!(
            flat_value(b"inactive_file 40", b"inactive_file"),
            None,
            "cut inside the number"
        );
    }

    #[test]
    fn tcp_lines_give_both_ends_and_the_inode() {
        let v4 = "   1: 0100007F:1F90 0500000A:1538 08 00000000:00000000 00:00000000 00000000     0        0 1679 1 0 100 0 0 10 0";
        let socket = tcp_socket(v4).unwrap();
        assert_eq!(socket.local_port, 8080);
        assert_eq!(socket.remote.to_string(), "10.0.0.5:5432");
        assert_eq!((socket.state, socket.inode), ("CLOSE_WAIT", 1679));

        let mapped = "0: 0000000000000000FFFF00000100007F:0BB8 0000000000000000FFFF00000100007F:D431 01 0:0 0:0 0 0 0 77 1 0";
        let socket = tcp_socket(mapped).unwrap();
        assert_eq!(socket.remote.to_string(), "127.0.0.1:54321");
        assert_eq!(socket.inode, 77);

        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(tcp_socket(heading), None);
        assert_eq!(tcp_socket("1: 0100007F:1F90 ü00007F:1F90 01"), None);
    }
}
