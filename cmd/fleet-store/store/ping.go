package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// opMsg is the opcode of every modern message (MongoDB wire protocol, OP_MSG).
const opMsg = 2013

// pingMessage is OP_MSG with the document {ping: int32 1, $db: "admin"}.
func pingMessage() []byte {
	doc := []byte("\x00\x00\x00\x00" + "\x10ping\x00\x01\x00\x00\x00" + "\x02$db\x00\x06\x00\x00\x00admin\x00" + "\x00")
	binary.LittleEndian.PutUint32(doc, uint32(len(doc)))
	msg := make([]byte, 16, 16+5+len(doc))
	binary.LittleEndian.PutUint32(msg[0:], uint32(cap(msg)))
	binary.LittleEndian.PutUint32(msg[4:], 1) // request id
	binary.LittleEndian.PutUint32(msg[12:], opMsg)
	msg = append(msg, 0, 0, 0, 0, 0) // flag bits, section kind 0
	return append(msg, doc...)
}

// ping asks the store through its own wire protocol whether it answers: an open port alone proves nothing.
func ping(ctx context.Context, addr string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if t, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(t); err != nil {
			return err
		}
	}
	if _, err := c.Write(pingMessage()); err != nil {
		return fmt.Errorf("send ping: %w", err)
	}
	head := make([]byte, 16)
	if _, err := io.ReadFull(c, head); err != nil {
		return fmt.Errorf("read reply to ping: %w", err)
	}
	size := binary.LittleEndian.Uint32(head)
	if code := binary.LittleEndian.Uint32(head[12:]); code != opMsg || size < 26 || size > 4096 {
		return fmt.Errorf("reply to ping: opcode %d of %d bytes", code, size)
	}
	body := make([]byte, size-16)
	if _, err := io.ReadFull(c, body); err != nil {
		return fmt.Errorf("read reply to ping: %w", err)
	}
	// Body: flags, kind, then the document {ok: double 1}.
	want := "\x01ok\x00\x00\x00\x00\x00\x00\x00\xf0\x3f"
	if len(body) < 9+len(want) || string(body[9:9+len(want)]) != want {
		return errors.New("the store answers ping with an error")
	}
	return nil
}
