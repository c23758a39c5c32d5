/* Packets of gdb's remote serial protocol: `$data#checksum`, acknowledged by `+` or `-`.
 *
 * A pure parser, one byte at a time, of bounded size; and the other way, into a
 * buffer.
 *
 * Source: the GDB manual, appendix "GDB Remote Serial Protocol", section Overview.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define GDB_PACKET_MAX 0x4000u /* bytes of data, unescaped */

enum gdb_event {
        GDB_NOTHING,  /* more is needed */
        GDB_PACKET,   /* `data` and `size` are one */
        GDB_DAMAGED,  /* its checksum is wrong */
        GDB_TOO_LONG, /* its checksum is right; its end is lost */
        GDB_RESEND,   /* `-`: what was sent last was damaged */
        GDB_BREAK,    /* byte 3 outside of a packet: stop the guest */
};

/* Zero it before the first byte. */
struct gdb_packet {
        enum { GDB_OUTSIDE, GDB_INSIDE, GDB_ESCAPED, GDB_CHECK_HIGH, GDB_CHECK_LOW } state;
        uint8_t sum, wanted;
        bool too_long;
        size_t size;
        char data[GDB_PACKET_MAX];
};

/* What `byte` completes. `data` is valid until the next call. */
enum gdb_event gdb_packet_take(struct gdb_packet *packet, uint8_t byte);

void gdb_packet_write(struct buf *out, const void *data, size_t size);
