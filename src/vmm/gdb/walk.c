#include "vmm/gdb/walk.h"

#define CR0_PG        (1ull << 31)
#define CR4_PSE       (1ull << 4)
#define CR4_PAE       (1ull << 5)
#define EFER_LMA      (1ull << 10)
#define ENTRY_PRESENT 1u
#define ENTRY_LARGE   (1u << 7)
#define ENTRY_ADDRESS 0x000ffffffffff000ull

/* How the tables of a mode are made: `top` is the level of the one CR3 points at, 1 the
 * lowest. */
struct paging {
        unsigned top, index_bits, entry_bytes;
};

static bool entry_at(const struct memory *memory, uint64_t table, uint64_t index, unsigned size,
                     uint64_t *ret)
{
        *ret = 0;
        return memory_read(memory, gpa(table + index * size), ret, size) == 0 &&
               *ret & ENTRY_PRESENT;
}

static bool walk_tables(const struct memory *memory, const struct paging *p, uint64_t table,
                        bool large, uint64_t linear, struct gpa *ret)
{
        for (unsigned level = p->top;; level--) {
                unsigned shift = 12 + (level - 1) * p->index_bits;
                uint64_t entry, index = linear >> shift & ((1u << p->index_bits) - 1);
                if (!entry_at(memory, table, index, p->entry_bytes, &entry))
                        return false;
                if (level == 1 || (large && level <= 3 && entry & ENTRY_LARGE)) {
                        uint64_t in_page = (1ull << shift) - 1;
                        uint64_t high = p->entry_bytes == 4 && level == 2
                                                ? (entry >> 13 & 0xff) << 32 /* PSE-36 */
                                                : 0;
                        *ret = gpa(high | (entry & ENTRY_ADDRESS & ~in_page) | (linear & in_page));
                        return true;
                }
                table = entry & ENTRY_ADDRESS;
        }
}

bool gdb_walk(const struct memory *memory, const struct cpu_state *s, uint64_t linear,
              struct gpa *ret)
{
        static const struct paging four = { 4, 9, 8 }, two = { 2, 10, 4 }, pae = { 2, 9, 8 };
        bool wide = s->efer & EFER_LMA;
        if (!wide)
                linear = (uint32_t)linear;
        if (!(s->cr0 & CR0_PG)) {
                *ret = gpa(linear);
                return true;
        }
        if (wide)
                return walk_tables(memory, &four, s->cr3 & ENTRY_ADDRESS, true, linear, ret);
        if (!(s->cr4 & CR4_PAE))
                return walk_tables(memory, &two, s->cr3 & 0xfffff000, s->cr4 & CR4_PSE, linear,
                                   ret);
        uint64_t entry; /* one of four, whose bits are not those of other levels */
        if (!entry_at(memory, s->cr3 & 0xffffffe0, linear >> 30, 8, &entry))
                return false;
        return walk_tables(memory, &pae, entry & ENTRY_ADDRESS, true, linear, ret);
}
