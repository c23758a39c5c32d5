/* Breakpoints and watchpoints that a debugger has set.
 *
 * A software breakpoint is an INT3 in guest memory, kept by guest physical address,
 * and hidden from the debugger's own reads. The others lie in four debug registers, of
 * which a wide or crooked watchpoint takes several.
 *
 * Threads: changed while no vCPU runs; gdb_points_has() may be asked by a vCPU's.
 */
#pragma once

#include "vmm/memory.h"
#include "vmm/vcpu.h"

#define GDB_SOFTWARE_MAX 256

/* As the protocol numbers them. */
enum gdb_point { GDB_SOFTWARE, GDB_HARDWARE, GDB_WRITE, GDB_READ, GDB_ACCESS };

struct gdb_points {
        struct {
                struct gpa at;
                unsigned uses; /* 0: free */
                uint8_t original;
        } software[GDB_SOFTWARE_MAX];
        struct {
                bool used;
                enum gdb_point kind;
                uint64_t address, size; /* what was asked for */
                uint64_t piece;         /* what this register watches */
                unsigned piece_size;
        } registers[4];
};

/* -EFAULT where there is no memory, -ENOSPC where there is no place. */
int gdb_points_insert(struct gdb_points *points, const struct memory *memory, struct gpa at);
int gdb_points_remove(struct gdb_points *points, const struct memory *memory, struct gpa at);
bool gdb_points_has(const struct gdb_points *points, struct gpa at);
/* Of bytes read at `at`, those that are an INT3 of ours. */
void gdb_points_hide(const struct gdb_points *points, struct gpa at, uint8_t *bytes, size_t size);
/* Writes around them: the breakpoints stay. */
int gdb_points_write(struct gdb_points *points, const struct memory *memory, struct gpa at,
                     const uint8_t *bytes, size_t size);

int gdb_points_watch(struct gdb_points *points, enum gdb_point kind, uint64_t address,
                     uint64_t size);
int gdb_points_unwatch(struct gdb_points *points, enum gdb_point kind, uint64_t address,
                       uint64_t size);
void gdb_points_registers(const struct gdb_points *points, struct vcpu_debug *ret);

void gdb_points_clear(struct gdb_points *points, const struct memory *memory);
