#include "vmm/gdb/points.h"

#include <errno.h>
#include <string.h>

#include "base/str.h"

#define INT3 0xcc

static int find(const struct gdb_points *p, struct gpa at)
{
        for (unsigned i = 0; i < GDB_SOFTWARE_MAX; i++)
                if (p->software[i].uses && p->software[i].at.value == at.value)
                        return (int)i;
        return -ENOENT;
}

int gdb_points_insert(struct gdb_points *p, const struct memory *memory, struct gpa at)
{
        static const uint8_t int3 = INT3;
        int i = find(p, at);
        if (i >= 0) {
                p->software[i].uses++;
                return 0;
        }
        for (i = 0; i < GDB_SOFTWARE_MAX && p->software[i].uses; i++)
                ;
        if (i == GDB_SOFTWARE_MAX)
                return -ENOSPC;
        int r = memory_read(memory, at, &p->software[i].original, 1);
        if (r == 0)
                r = memory_write(memory, at, &int3, 1);
        if (r == 0) {
                p->software[i].at = at;
                p->software[i].uses = 1;
        }
        return r;
}

/* What the guest has written over it stays. */
static void restore(const struct memory *memory, struct gpa at, uint8_t original)
{
        uint8_t now = 0;
        if (memory_read(memory, at, &now, 1) == 0 && now == INT3)
                (void)memory_write(memory, at, &original, 1);
}

int gdb_points_remove(struct gdb_points *p, const struct memory *memory, struct gpa at)
{
        int i = find(p, at);
        if (i < 0)
                return i;
        if (--p->software[i].uses == 0)
                restore(memory, at, p->software[i].original);
        return 0;
}

bool gdb_points_has(const struct gdb_points *p, struct gpa at)
{
        return find(p, at) >= 0;
}

void gdb_points_hide(const struct gdb_points *p, struct gpa at, uint8_t *bytes, size_t size)
{
        for (unsigned i = 0; i < GDB_SOFTWARE_MAX; i++) {
                uint64_t offset = p->software[i].at.value - at.value;
                if (p->software[i].uses && offset < size && bytes[offset] == INT3)
                        bytes[offset] = p->software[i].original;
        }
}

int gdb_points_write(struct gdb_points *p, const struct memory *memory, struct gpa at,
                     const uint8_t *bytes, size_t size)
{
        static const uint8_t int3 = INT3;
        int r = memory_write(memory, at, bytes, size);
        for (unsigned i = 0; r == 0 && i < GDB_SOFTWARE_MAX; i++) {
                uint64_t offset = p->software[i].at.value - at.value;
                if (!p->software[i].uses || offset >= size)
                        continue;
                p->software[i].original = bytes[offset];
                r = memory_write(memory, p->software[i].at, &int3, 1);
        }
        return r;
}

/* ---- debug registers ---- */

static int take_register(struct gdb_points *p, enum gdb_point kind, uint64_t address, uint64_t size,
                         uint64_t piece, unsigned piece_size)
{
        for (unsigned i = 0; i < ELEMENTS(p->registers); i++) {
                if (p->registers[i].used)
                        continue;
                p->registers[i].used = true;
                p->registers[i].kind = kind;
                p->registers[i].address = address;
                p->registers[i].size = size;
                p->registers[i].piece = piece;
                p->registers[i].piece_size = piece_size;
                return 0;
        }
        return -ENOSPC;
}

int gdb_points_watch(struct gdb_points *p, enum gdb_point kind, uint64_t address, uint64_t size)
{
        if (kind == GDB_HARDWARE)
                return take_register(p, kind, address, size, address, 1);
        if (size < 1 || size > 32 || address + size < address)
                return -EINVAL;
        for (uint64_t done = 0; done < size;) {
                unsigned piece = 8; /* aligned, and not beyond the end */
                while ((address + done) % piece || piece > size - done)
                        piece /= 2;
                int r = take_register(p, kind, address, size, address + done, piece);
                if (r < 0) {
                        (void)gdb_points_unwatch(p, kind, address, size);
                        return r;
                }
                done += piece;
        }
        return 0;
}

int gdb_points_unwatch(struct gdb_points *p, enum gdb_point kind, uint64_t address, uint64_t size)
{
        int r = -ENOENT;
        for (unsigned i = 0; i < ELEMENTS(p->registers); i++) {
                if (!p->registers[i].used || p->registers[i].kind != kind ||
                    p->registers[i].address != address || p->registers[i].size != size)
                        continue;
                p->registers[i].used = false;
                r = 0;
        }
        return r;
}

void gdb_points_registers(const struct gdb_points *p, struct vcpu_debug *ret)
{
        static const uint8_t lengths[9] = { [1] = 0, [2] = 1, [8] = 2, [4] = 3 };
        ret->dr7 = 0;
        for (unsigned i = 0; i < ELEMENTS(p->registers); i++) {
                if (!p->registers[i].used)
                        continue;
                /* Reading alone cannot be watched: gdb looks whether the value has changed. */
                unsigned type = p->registers[i].kind == GDB_HARDWARE ? 0
                                : p->registers[i].kind == GDB_WRITE  ? 1
                                                                     : 3;
                unsigned length = lengths[p->registers[i].piece_size];
                ret->dr[i] = p->registers[i].piece;
                ret->dr7 |= 0x400ull | 2ull << 2 * i |
                            (uint64_t)(type | length << 2) << (16 + 4 * i);
        }
}

void gdb_points_clear(struct gdb_points *p, const struct memory *memory)
{
        for (unsigned i = 0; i < GDB_SOFTWARE_MAX; i++)
                if (p->software[i].uses)
                        restore(memory, p->software[i].at, p->software[i].original);
        memset(p, 0, sizeof(*p));
}
