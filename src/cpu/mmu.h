/* From a linear address to bytes: what the files about it share.
 *
 *   linear.c    accesses that the inline look at the TLB did not serve
 *   tlb.c       fills it, flushes it
 *   walk.c      asks the guest's page tables
 *   physical.c  memory, devices, and who must be told when code is written
 */
#pragma once

#include "cpu/core.h"

#define PTE_P   0x1ull
#define PTE_W   0x2ull
#define PTE_U   0x4ull
#define PTE_A   0x20ull
#define PTE_D   0x40ull
#define PTE_PS  0x80ull
#define PTE_G   0x100ull
#define PTE_NX  (1ull << 63)
#define PTE_ADR 0x000ffffffffff000ull

#define PTE_KEY_SHIFT 59

/* ---- walk.c ---- */

struct walk {
        uint64_t gpa; /* of the byte */
        bool writable, user, nx, global, dirty;
        bool accessed; /* at every level */
        uint8_t key;   /* of protection */
        uint8_t size;  /* of the page: 0, TLB_LARGE or TLB_HUGE */
        bool present, reserved;
};

/* Without effect on the tables where `mark` is 0; else those bits, PTE_A and PTE_D, are set in the
 * last entry, and PTE_A in those above. */
struct walk cpu_walk(struct cpu *cpu, uint64_t linear, uint64_t mark);
bool cpu_walk_allows(const struct cpu *cpu, const struct walk *walk, enum mem_access access,
                     enum mem_context context);
_Noreturn void cpu_page_fault(struct cpu *cpu, uint64_t linear, const struct walk *walk,
                              enum mem_access access, enum mem_context context);

/* ---- physical.c; accesses are within one page ---- */

void cpu_physical_read(struct cpu *cpu, uint64_t gpa, uint8_t *bytes, unsigned size);
void cpu_physical_write(struct cpu *cpu, uint64_t gpa, const uint8_t *bytes, unsigned size);
static inline void cpu_note_write(const struct cpu_memory *memory, uint64_t page)
{
        uint64_t *word = memory->dirty, bit = 1ull << page % 64;
        if (likely(!word) || page >= memory->pages)
                return;
        word += page / 64;
        if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit))
                __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
}
/* Whether it needs not be noted any more. */
static inline bool cpu_write_noted(const struct cpu_memory *memory, uint64_t page)
{
        return likely(!memory->dirty) || page >= memory->pages ||
               __atomic_load_n(&memory->dirty[page / 64], __ATOMIC_RELAXED) >> page % 64 & 1;
}
/* Code of the page is out of date: moves its generation on, unmarked. False: it held none. */
bool cpu_page_written(struct cpu_memory *memory, uint64_t page);
/* All vCPUs but one have to look which code changed. */
void cpu_tell_others(const struct cpu_memory *memory, const struct cpu *but);

/* ---- tlb.c ---- */

/* Takes all out that is not global; as much as there is room for can be given back later. */
unsigned cpu_tlb_take(struct cpu *cpu, struct saved_page *ret, unsigned room);
void cpu_tlb_give(struct cpu *cpu, const struct saved_page *pages, unsigned length);
