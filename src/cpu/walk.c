/* The page walk: from a linear address through the guest's tables. */
#include "cpu/mmu.h"

#define PF_P    0x1u
#define PF_W    0x2u
#define PF_U    0x4u
#define PF_RSVD 0x8u
#define PF_I    0x10u
#define PF_PK   0x20u

#define PHYSICAL_BITS 46
#define PTE_BEYOND    (PTE_ADR & ~((1ull << PHYSICAL_BITS) - 1))

static uint64_t entry_read(struct cpu *cpu, uint64_t gpa, unsigned size)
{
        const uint8_t *host = cpu_ram(cpu, gpa, false);
        uint64_t value = 0;
        if (likely(host && size == 8))
                return __atomic_load_n((const uint64_t *)(const void *)host, __ATOMIC_RELAXED);
        cpu_physical_read(cpu, gpa, (uint8_t *)&value, size);
        return value;
}

/* Sets A (and D) as the processor does: atomically, only if not set yet. */
static void entry_mark(struct cpu *cpu, uint64_t gpa, uint64_t entry, uint64_t bits)
{
        if ((entry & bits) == bits)
                return;
        uint8_t *host = cpu_ram(cpu, gpa, true);
        if (!host)
                return;
        __atomic_fetch_or((uint32_t *)(void *)host, (uint32_t)bits, __ATOMIC_SEQ_CST);
        cpu_page_written(cpu->memory, gpa >> 12);
}

/* Bits that must be zero in an entry of the given level in long or PAE mode. */
static uint64_t reserved_bits(const struct cpu *cpu, unsigned level, uint64_t entry)
{
        uint64_t bits = PTE_BEYOND;
        if (!(cpu->s.efer & EFER_NXE))
                bits |= PTE_NX;
        if (!cpu->long_mode)
                bits |= 0x7ff0000000000000ull;
        if (level == 4)
                bits |= PTE_PS;
        else if (level > 1 && entry & PTE_PS)
                bits |= level == 3 ? 0x3fffe000ull : 0x1fe000ull;
        return bits;
}

static struct path *path_of(struct cpu *cpu, uint64_t linear)
{
        return &cpu->paths[linear >> 21 & (PATH_ENTRIES - 1)];
}

/* The last level of a walk, read from the host address of its entry. */
static struct walk walk_leaf(struct cpu *cpu, struct walk w, uint64_t linear, uint64_t at,
                             uint64_t entry, unsigned level, uint64_t mark)
{
        uint64_t mask = (1ull << (3 + 9 * level)) - 1;
        if (mark)
                entry_mark(cpu, at, entry, mark);
        w.gpa = (entry & PTE_ADR & ~mask) | (linear & mask);
        w.global = entry & PTE_G && cpu->s.cr4 & CR4_PGE;
        w.size = level == 1 ? 0 : level == 2 ? TLB_LARGE : TLB_HUGE;
        w.dirty = entry & PTE_D;
        w.key = entry >> PTE_KEY_SHIFT & 15;
        w.present = true;
        return w;
}

/* Takes an entry into account. False: the walk ends there. */
static bool walk_entry(const struct cpu *cpu, struct walk *w, uint64_t entry, unsigned level)
{
        if (!(entry & PTE_P))
                return false;
        w->reserved = entry & reserved_bits(cpu, level, entry);
        w->writable &= (entry & PTE_W) != 0;
        w->user &= (entry & PTE_U) != 0;
        w->accessed &= (entry & PTE_A) != 0;
        w->nx |= (entry & PTE_NX) != 0;
        return !w->reserved;
}

/* The walk where the way to the page table is known. */
static struct walk walk_short(struct cpu *cpu, const struct path *p, uint64_t linear, uint64_t mark)
{
        struct walk w = { .writable = p->writable, .user = p->user, .nx = p->nx, .accessed = true };
        uint64_t at = (linear >> 12 & 511) * 8;
        uint64_t entry = __atomic_load_n((const uint64_t *)(const void *)(p->host + at),
                                         __ATOMIC_RELAXED);
        if (!walk_entry(cpu, &w, entry, 1))
                return w;
        return walk_leaf(cpu, w, linear, p->table + at, entry, 1, mark);
}

static void remember_path(struct cpu *cpu, uint64_t linear, uint64_t table, const struct walk *w)
{
        const uint8_t *host = w->accessed ? cpu_ram(cpu, table, false) : NULL;
        if (host)
                *path_of(cpu, linear) = (struct path){ linear >> 21, cpu->epoch, table, host,
                                                       w->writable,  w->user,    w->nx };
}

/* 4-level or, from level 2 on, PAE. The path of entries is marked accessed only
 * when the whole walk succeeds, by the caller's second pass with `mark`. */
static struct walk walk_wide(struct cpu *cpu, uint64_t linear, uint64_t mark)
{
        const struct path *p = path_of(cpu, linear);
        if (p->key == linear >> 21 && p->epoch == cpu->epoch)
                return walk_short(cpu, p, linear, mark);
        struct walk w = { .writable = true, .user = true, .accessed = true };
        unsigned level = 4;
        uint64_t table = cpu->s.cr3 & PTE_ADR;
        if (!cpu->long_mode) {
                table = cpu->s.cr3 & 0xffffffe0;
                uint64_t pdpte = entry_read(cpu, table + (linear >> 30 & 3) * 8, 8);
                if (!(pdpte & PTE_P))
                        return w;
                table = pdpte & PTE_ADR;
                level = 2;
        }
        for (;; level--) {
                if (level == 1)
                        remember_path(cpu, linear, table, &w);
                uint64_t at = table + (linear >> (3 + 9 * level) & 511) * 8;
                uint64_t entry = entry_read(cpu, at, 8);
                if (!walk_entry(cpu, &w, entry, level))
                        return w;
                if (level == 1 || (entry & PTE_PS && level <= 3))
                        return walk_leaf(cpu, w, linear, at, entry, level, mark);
                if (mark)
                        entry_mark(cpu, at, entry, PTE_A);
                table = entry & PTE_ADR;
        }
}

static struct walk walk_32(struct cpu *cpu, uint64_t linear, uint64_t mark)
{
        struct walk w = { .writable = true, .user = true, .accessed = true };
        uint64_t table = cpu->s.cr3 & 0xfffff000;
        for (unsigned level = 2;; level--) {
                unsigned shift = level == 2 ? 22 : 12;
                uint64_t at = table + (linear >> shift & 1023) * 4;
                uint64_t entry = entry_read(cpu, at, 4);
                if (!(entry & PTE_P))
                        return w;
                bool large = level == 2 && entry & PTE_PS && cpu->s.cr4 & CR4_PSE;
                if (large && entry & 0x200000) { /* PSE-36 up to 40 bits */
                        w.reserved = true;
                        return w;
                }
                w.writable &= (entry & PTE_W) != 0;
                w.user &= (entry & PTE_U) != 0;
                w.accessed &= (entry & PTE_A) != 0;
                bool leaf = level == 1 || large;
                if (mark)
                        entry_mark(cpu, at, entry, leaf ? mark : PTE_A);
                if (leaf) {
                        uint64_t mask = (1ull << shift) - 1;
                        w.gpa = (entry & 0xfffff000 & ~mask) | (linear & mask);
                        if (large)
                                w.gpa |= (entry >> 13 & 0xff) << 32;
                        w.global = entry & PTE_G && cpu->s.cr4 & CR4_PGE;
                        w.size = large ? TLB_LARGE : 0;
                        w.dirty = entry & PTE_D;
                        w.present = true;
                        return w;
                }
                table = entry & 0xfffff000;
        }
}

struct walk cpu_walk(struct cpu *cpu, uint64_t linear, uint64_t mark)
{
        cpu->counters.page_walks++;
        if (!(cpu->s.cr0 & CR0_PG))
                return (struct walk){ .gpa = linear & 0xffffffff,
                                      .writable = true,
                                      .user = true,
                                      .dirty = true,
                                      .present = true };
        if (cpu->s.cr4 & CR4_PAE)
                return walk_wide(cpu, linear, mark);
        return walk_32(cpu, linear, mark);
}

bool cpu_pdptes_valid(struct cpu *cpu)
{
        for (unsigned i = 0; i < 4; i++) {
                uint64_t pdpte = entry_read(cpu, (cpu->s.cr3 & 0xffffffe0) + i * 8, 8);
                if (pdpte & PTE_P && pdpte & (PTE_BEYOND | 0x7ff00000000001e6ull | PTE_NX))
                        return false;
        }
        return true;
}

bool cpu_walk_allows(const struct cpu *cpu, const struct walk *w, enum mem_access access,
                     enum mem_context context)
{
        bool user = context == CTX_USER;
        if (!(cpu->s.cr0 & CR0_PG))
                return true;
        if (access == ACCESS_FETCH) {
                if (w->nx || (user && !w->user))
                        return false;
                return user || !w->user || !(cpu->s.cr4 & CR4_SMEP);
        }
        if (cpu_key_denies(cpu, w->key, w->user, access == ACCESS_WRITE, user))
                return false;
        if (user)
                return w->user && (access == ACCESS_READ || w->writable);
        if (w->user && cpu->s.cr4 & CR4_SMAP && context == CTX_KERNEL)
                return false;
        return access == ACCESS_READ || w->writable || !(cpu->s.cr0 & CR0_WP);
}

void cpu_page_fault(struct cpu *cpu, uint64_t linear, const struct walk *w, enum mem_access access,
                    enum mem_context context)
{
        uint32_t error = 0;
        if (w->present || w->reserved)
                error |= PF_P;
        if (w->reserved)
                error |= PF_RSVD;
        if (access == ACCESS_WRITE)
                error |= PF_W;
        if (context == CTX_USER)
                error |= PF_U;
        if (access == ACCESS_FETCH && (cpu->s.efer & EFER_NXE || cpu->s.cr4 & CR4_SMEP))
                error |= PF_I;
        if (w->present && access != ACCESS_FETCH &&
            cpu_key_denies(cpu, w->key, w->user, access == ACCESS_WRITE, context == CTX_USER))
                error |= PF_PK;
        cpu->s.cr2 = linear;
        cpu_raise_error(cpu, VEC_PF, error);
}
