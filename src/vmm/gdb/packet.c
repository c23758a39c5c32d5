#include "vmm/gdb/packet.h"

#include "base/str.h"

#define BREAK_BYTE 3
#define ESCAPE     0x7d
#define ESCAPE_XOR 0x20

static void keep(struct gdb_packet *p, uint8_t byte)
{
        if (p->size == sizeof(p->data))
                p->too_long = true;
        else
                p->data[p->size++] = (char)byte;
}

static enum gdb_event outside(struct gdb_packet *p, uint8_t byte)
{
        if (byte == '$') {
                p->state = GDB_INSIDE;
                p->sum = 0;
                p->size = 0;
                p->too_long = false;
        }
        return byte == '-' ? GDB_RESEND : byte == BREAK_BYTE ? GDB_BREAK : GDB_NOTHING;
}

static enum gdb_event inside(struct gdb_packet *p, uint8_t byte)
{
        if (p->state == GDB_INSIDE && byte == '#') {
                p->state = GDB_CHECK_HIGH;
                return GDB_NOTHING;
        }
        if (p->state == GDB_INSIDE && byte == '$') /* the rest of the last one was lost */
                return outside(p, byte);
        p->sum = (uint8_t)(p->sum + byte);
        if (p->state == GDB_ESCAPED) {
                keep(p, byte ^ ESCAPE_XOR);
                p->state = GDB_INSIDE;
        } else if (byte == ESCAPE) {
                p->state = GDB_ESCAPED;
        } else {
                keep(p, byte);
        }
        return GDB_NOTHING;
}

static enum gdb_event check(struct gdb_packet *p, uint8_t byte)
{
        int digit = str_hex_digit((char)byte);
        if (digit < 0) {
                p->state = GDB_OUTSIDE;
                return GDB_DAMAGED;
        }
        p->wanted = (uint8_t)(p->wanted << 4 | digit);
        if (p->state == GDB_CHECK_HIGH) {
                p->state = GDB_CHECK_LOW;
                return GDB_NOTHING;
        }
        p->state = GDB_OUTSIDE;
        if (p->wanted != p->sum)
                return GDB_DAMAGED;
        return p->too_long ? GDB_TOO_LONG : GDB_PACKET;
}

enum gdb_event gdb_packet_take(struct gdb_packet *p, uint8_t byte)
{
        switch (p->state) {
        case GDB_OUTSIDE:
                return outside(p, byte);
        case GDB_INSIDE:
        case GDB_ESCAPED:
                return inside(p, byte);
        default:
                return check(p, byte);
        }
}

void gdb_packet_write(struct buf *out, const void *data, size_t size)
{
        const uint8_t *bytes = data;
        uint8_t sum = 0;
        buf_putc(out, '$');
        for (size_t i = 0; i < size; i++) {
                uint8_t byte = bytes[i];
                if (byte == '$' || byte == '#' || byte == '*' || byte == ESCAPE) {
                        buf_putc(out, ESCAPE);
                        sum = (uint8_t)(sum + ESCAPE);
                        byte ^= ESCAPE_XOR;
                }
                buf_putc(out, (char)byte);
                sum = (uint8_t)(sum + byte);
        }
        buf_printf(out, "#%02x", sum);
}
