package oplog

import (
	"encoding/binary"
	"fmt"
)

// Key spaces, by first byte. Numbers are big endian, so that Pebble's order is theirs.
const (
	spaceCheckpoint = 'c' // c name                     → vector
	spaceIdentity   = 'i' // i                          → format version, own origin
	spaceLog        = 'l' // l origin seq               → entry
	spaceMeta       = 'm' // m                          → meta
	spaceSession    = 's' // s len(lsid) lsid txn stmt  → last use, origin, seq, result
	spaceOrigin     = 'v' // v origin                   → floor, head, HLC
)

func logKey(origin uint8, seq uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{spaceLog, origin}, seq)
}

func parseLogKey(k []byte) (origin uint8, seq uint64, err error) {
	if len(k) != 10 || k[0] != spaceLog {
		return 0, 0, fmt.Errorf("%w: key %x", ErrFormat, k)
	}
	return k[1], binary.BigEndian.Uint64(k[2:]), nil
}

func originKey(origin uint8) []byte { return []byte{spaceOrigin, origin} }

func checkpointKey(name string) []byte { return append([]byte{spaceCheckpoint}, name...) }

func sessionKey(lsid []byte, txn int64, stmt int32) []byte {
	k := append([]byte{spaceSession, byte(len(lsid))}, lsid...)
	k = binary.BigEndian.AppendUint64(k, uint64(txn))
	return binary.BigEndian.AppendUint32(k, uint32(stmt))
}

func parseSessionKey(k []byte) (lsid string, txn int64, stmt int32, err error) {
	if len(k) < 2 || k[0] != spaceSession || len(k) != 2+int(k[1])+12 {
		return "", 0, 0, fmt.Errorf("%w: key %x", ErrFormat, k)
	}
	tail := k[2+int(k[1]):]
	return string(k[2 : 2+int(k[1])]), int64(binary.BigEndian.Uint64(tail)), int32(binary.BigEndian.Uint32(tail[8:])), nil
}

// after is the first key behind all keys that begin with prefix.
func after(prefix ...byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
