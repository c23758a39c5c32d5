/* Snapshots of a machine: a directory of two files, `state` (state.h) and `memory` (memory.h).
 *
 * Theory of operation. Who saves makes the directory under a temporary name, and the empty file
 * for the memory in it, whose descriptor goes along with the request (control/saving.h): a jailed
 * machine opens no files. The machine writes its memory there and answers with its state, which
 * the client writes beside it; when both are on disk, the directory gets its name. So a directory
 * of that name is whole, whenever somebody was killed.
 *
 * Who restores opens both files before the jail. The machine is built from its configuration as
 * for a start, with the file's pages as its memory instead of zeros; in the place of the loader
 * comes snapshot_load(). A section for which there is no device, or a device for which there is
 * no section, is an error: a machine is restored as it was saved, or not at all.
 *
 * The same directory may be restored any number of times. For the guest no time has passed; the
 * RTC has the host's. What it had drawn from its random number generator, all clones have.
 *
 * Threads: the loop's.
 */
#pragma once

#include "base/buf.h"
#include "vmm/machine.h"
#include "vmm/snapshot/memory.h"

#define SNAPSHOT_STATE  "state"
#define SNAPSHOT_MEMORY "memory"

/* An opened one. */
struct snapshot {
        char *name; /* of the state's file, for errors */
        char *memory_name;
        char *state;
        size_t state_size;
        int memory_fd;
};

/* Saves a machine that is paused: the memory to `memory_fd`, an empty file; the state's bytes are
 * appended to `ret`. -ENOTSUP, naming it, where a device cannot be saved. */
int snapshot_save(struct machine *machine, int memory_fd, struct buf *ret, struct err *err);

/* Reads the state and opens the memory. */
int snapshot_open(const char *dir, struct snapshot *ret, struct err *err);
void snapshot_close(struct snapshot *snapshot);

/* Whether the machine that the snapshot is of has this many bytes of memory and this many vCPUs,
 * and its memory is whole. Before the machine is built. */
int snapshot_fits(const struct snapshot *snapshot, uint64_t memory_bytes, unsigned vcpus,
                  struct err *err);
/* Into a machine that was built with the snapshot's memory; nothing has run. */
int snapshot_load(const struct snapshot *snapshot, struct machine *machine, struct err *err);
