/* Guest memory: one memfd or file, mapped once, cut into slots around the PCI hole.
 *
 * The memory is shared with the guest: nothing read from it is stable. Code
 * that interprets guest structures copies them out with memory_read() and looks
 * at the copy only. memory_at() hands out the mapping itself for bulk transfers
 * where a change under our feet does no harm.
 *
 * Threads: slots are fixed once the machine is built; all accessors may be used
 * by any thread. Writers tell memory_touched(), so that decoded code of the
 * software CPU is dropped; memory_write() does it itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "vmm/addr.h"

#define MEMORY_SLOTS     4
#define MEMORY_SIZE_MIN  (1ull << 20)
#define MEMORY_PAGE_SIZE 4096ull

struct memory_slot {
        struct gpa base;
        uint64_t size_bytes;
        struct hva host;
        uint64_t file_offset; /* in the file */
};

struct memory {
        int fd;
        uint64_t size_bytes;
        uint8_t *map; /* the whole file, but for what memory_share() put in the place of parts */
        struct memory_slot slots[MEMORY_SLOTS];
        unsigned length;
        bool overlaid; /* parts of the map are other than the file's */
        /* Told of every write by the machine; NULL when nobody cares. */
        void (*touched)(void *arg, struct gpa base, uint64_t size_bytes);
        void *touched_arg;
        uint64_t *dirty; /* a bit per guest physical page (dirty.h); NULL: nobody asks */
};

/* Zeroed memory of a whole number of pages; refuses what the host does not have. With `path`,
 * that file of no size becomes the memory and keeps it; NULL: it goes with the machine. */
int memory_init(struct memory *memory, uint64_t size_bytes, const char *path, struct err *err);
/* The first bytes of the file `fd` come in the place of zeros, private to this memory, read as
 * they are touched. The file has as many, and does not change while the memory lives. */
int memory_overlay(struct memory *memory, int fd, struct err *err);
void memory_finish(struct memory *memory);

/* The `size` bytes at `base`, or NULL where they are not all memory of one slot. */
uint8_t *memory_at(const struct memory *memory, struct gpa base, uint64_t size_bytes);

/* Copies; -EFAULT where the range is not memory, with nothing transferred. */
int memory_read(const struct memory *memory, struct gpa base, void *bytes, uint64_t size_bytes);
int memory_write(const struct memory *memory, struct gpa base, const void *bytes,
                 uint64_t size_bytes);

/* The same for an image that takes `whole_bytes` of memory, zeros behind the first
 * `size_bytes`. Pages that nobody touched yet are made by the file's write, which costs less
 * than a page fault each, and those of zeros are not made at all. */
int memory_load(const struct memory *memory, struct gpa base, const void *image,
                uint64_t size_bytes, uint64_t whole_bytes);

/* Gives whole pages of the map back to the host. The guest must not expect anything of what
 * they hold then. */
void memory_forget(const struct memory *memory, uint64_t offset, uint64_t size_bytes);

/* The end of what there is, in pages. */
static inline uint64_t memory_pages(const struct memory *memory)
{
        const struct memory_slot *last = &memory->slots[memory->length - 1];
        return (last->base.value + last->size_bytes) / MEMORY_PAGE_SIZE;
}

/* Notes a write of what no processor executes; memory_touched() does it too. */
static inline void memory_dirtied(const struct memory *memory, struct gpa base, uint64_t size_bytes)
{
        if (!memory->dirty || !size_bytes)
                return;
        uint64_t end = (base.value + size_bytes - 1) / MEMORY_PAGE_SIZE;
        for (uint64_t page = base.value / MEMORY_PAGE_SIZE; page <= end; page++)
                __atomic_fetch_or(&memory->dirty[page / 64], 1ull << page % 64, __ATOMIC_RELAXED);
}

static inline void memory_touched(const struct memory *memory, struct gpa base, uint64_t size_bytes)
{
        memory_dirtied(memory, base, size_bytes);
        if (memory->touched)
                memory->touched(memory->touched_arg, base, size_bytes);
}
