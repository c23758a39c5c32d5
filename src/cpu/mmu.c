/* Paging, the software TLB, physical memory and the bus. */
#include "cpu/translate.h"

#include <string.h>

#define PTE_P   0x1ull
#define PTE_W   0x2ull
#define PTE_U   0x4ull
#define PTE_A   0x20ull
#define PTE_D   0x40ull
#define PTE_PS  0x80ull
#define PTE_G   0x100ull
#define PTE_NX  (1ull << 63)
#define PTE_ADR 0x000ffffffffff000ull

#define PF_P    0x1u
#define PF_W    0x2u
#define PF_U    0x4u
#define PF_RSVD 0x8u
#define PF_I    0x10u

#define PHYSICAL_BITS 46
#define PTE_BEYOND    (PTE_ADR & ~((1ull << PHYSICAL_BITS) - 1))

/* ---- guest physical memory ---- */

int cpu_memory_init(struct cpu_memory *memory, struct err *err)
{
        uint64_t top = 0;
        for (unsigned i = 0; i < memory->length; i++) {
                const struct cpu_slot *slot = &memory->slots[i];
                if ((slot->gpa | slot->size_bytes | (uintptr_t)slot->host) & PAGE_MASK)
                        return err_plain(err, EINVAL, "memory slot %u is not page aligned", i);
                if (slot->gpa + slot->size_bytes > top)
                        top = slot->gpa + slot->size_bytes;
        }
        memory->pages = top >> 12;
        memory->code_generation = calloc(memory->pages ? memory->pages : 1, sizeof(uint32_t));
        if (!memory->code_generation)
                return err_set(err, ENOMEM, "code map of %llu pages",
                               (unsigned long long)memory->pages);
        return 0;
}

void cpu_memory_finish(struct cpu_memory *memory)
{
        free(memory->code_generation);
        memory->code_generation = NULL;
}

/* The page's decoded code is out of date: moves its generation on, unmarked. */
static void tell_others(const struct cpu_memory *memory, const struct cpu *but)
{
        unsigned length = atomic_load(&memory->cpus_length);
        for (unsigned i = 0; i < length; i++)
                if (memory->cpus[i] != but)
                        cpu_pend(memory->cpus[i], PEND_CODE);
}

static bool page_written(struct cpu_memory *memory, uint64_t page)
{
        if (page >= memory->pages)
                return false;
        uint32_t old = __atomic_load_n(&memory->code_generation[page], __ATOMIC_RELAXED);
        while (old & 1) {
                if (__atomic_compare_exchange_n(&memory->code_generation[page], &old, old + 1, true,
                                                __ATOMIC_RELEASE, __ATOMIC_RELAXED))
                        return true;
        }
        return false;
}

void cpu_memory_written(struct cpu_memory *memory, uint64_t gpa, uint64_t size_bytes)
{
        if (size_bytes == 0)
                return;
        bool code = false;
        for (uint64_t page = gpa >> 12; page <= (gpa + size_bytes - 1) >> 12; page++)
                code |= page_written(memory, page);
        if (code)
                tell_others(memory, NULL);
}

static const struct cpu_slot *slot_find(const struct cpu_memory *memory, uint64_t gpa)
{
        for (unsigned i = 0; i < memory->length; i++)
                if (gpa - memory->slots[i].gpa < memory->slots[i].size_bytes)
                        return &memory->slots[i];
        return NULL;
}

uint8_t *cpu_ram(struct cpu *cpu, uint64_t gpa, bool write)
{
        const struct cpu_slot *slot = slot_find(cpu->memory, gpa);
        if (!slot || (write && slot->read_only))
                return NULL;
        return slot->host + (gpa - slot->gpa);
}

static uint64_t bus_read(struct cpu *cpu, uint64_t gpa, unsigned size)
{
        if (!cpu->bus->mmio_read)
                return UINT64_MAX;
        cpu_fpu_leave(cpu);
        uint64_t value = cpu->bus->mmio_read(cpu->bus->arg, gpa, size);
        cpu_fpu_enter(cpu);
        return value;
}

static void bus_write(struct cpu *cpu, uint64_t gpa, unsigned size, uint64_t value)
{
        if (!cpu->bus->mmio_write)
                return;
        cpu_code_catch_up(cpu);
        cpu_fpu_leave(cpu);
        cpu->bus->mmio_write(cpu->bus->arg, gpa, size, value);
        cpu_fpu_enter(cpu);
}

/* Device registers see accesses of at most 8 bytes, a power of two each. */
static unsigned bus_piece(uint64_t gpa, unsigned size)
{
        unsigned piece = size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
        while (gpa & (piece - 1))
                piece /= 2;
        return piece;
}

void cpu_code_written(struct cpu *cpu, uint64_t gpa)
{
        if (page_written(cpu->memory, gpa >> 12)) {
                cpu_jumps_forget_page(cpu, gpa);
                tell_others(cpu->memory, cpu);
        }
        if (gpa >> 12 == cpu->block_page >> 12 && cpu->step)
                cpu_stop_block(cpu); /* the code being executed changed */
}

/* Within one page. */
static void physical_read(struct cpu *cpu, uint64_t gpa, uint8_t *bytes, unsigned size)
{
        const uint8_t *host = cpu_ram(cpu, gpa, false);
        if (host) {
                memcpy(bytes, host, size);
                return;
        }
        while (size) {
                unsigned piece = bus_piece(gpa, size);
                uint64_t value = bus_read(cpu, gpa, piece);
                memcpy(bytes, &value, piece);
                gpa += piece;
                bytes += piece;
                size -= piece;
        }
}

static void physical_write(struct cpu *cpu, uint64_t gpa, const uint8_t *bytes, unsigned size)
{
        uint8_t *host = cpu_ram(cpu, gpa, true);
        if (host) {
                memcpy(host, bytes, size);
                cpu_code_written(cpu, gpa);
                return;
        }
        while (size) {
                unsigned piece = bus_piece(gpa, size);
                uint64_t value = 0;
                memcpy(&value, bytes, piece);
                bus_write(cpu, gpa, piece, value);
                gpa += piece;
                bytes += piece;
                size -= piece;
        }
}

/* ---- page walk ---- */

struct walk {
        uint64_t gpa; /* of the byte */
        bool writable, user, nx, global, dirty;
        bool accessed; /* at every level */
        bool present, reserved;
};

static uint64_t entry_read(struct cpu *cpu, uint64_t gpa, unsigned size)
{
        const uint8_t *host = cpu_ram(cpu, gpa, false);
        uint64_t value = 0;
        if (likely(host && size == 8))
                return __atomic_load_n((const uint64_t *)(const void *)host, __ATOMIC_RELAXED);
        physical_read(cpu, gpa, (uint8_t *)&value, size);
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
        page_written(cpu->memory, gpa >> 12);
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
        w.global = entry & PTE_G;
        w.dirty = entry & PTE_D;
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
                        w.global = entry & PTE_G;
                        w.dirty = entry & PTE_D;
                        w.present = true;
                        return w;
                }
                table = entry & 0xfffff000;
        }
}

static struct walk walk(struct cpu *cpu, uint64_t linear, uint64_t mark)
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

static bool allowed(const struct cpu *cpu, const struct walk *w, enum mem_access access,
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
        if (user)
                return w->user && (access == ACCESS_READ || w->writable);
        if (w->user && cpu->s.cr4 & CR4_SMAP && context == CTX_KERNEL)
                return false;
        return access == ACCESS_READ || w->writable || !(cpu->s.cr0 & CR0_WP);
}

static _Noreturn void page_fault(struct cpu *cpu, uint64_t linear, const struct walk *w,
                                 enum mem_access access, enum mem_context context)
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
        cpu->s.cr2 = linear;
        cpu_raise_error(cpu, VEC_PF, error);
}

static void tlb_drop(struct tlb *t, unsigned i)
{
        t->read[i] = t->write[i] = t->fetch[i] = tlb_nothing(i);
}

/* ---- who may write a page ---- */

static unsigned writer_set(uint64_t gpa)
{
        return (gpa >> 12 ^ gpa >> 22) & (WRITER_SETS - 1);
}

/* Whether the place of this number may write a page of this set. */
static bool writes(const struct cpu *cpu, unsigned number, unsigned set)
{
        const struct tlb *t = &cpu->tlbs[(number - 1) / TLB_ENTRIES];
        unsigned i = (number - 1) % TLB_ENTRIES;
        return t->write[i] != tlb_nothing(i) && writer_set(t->gpa[i]) == set;
}

static void note_writer(struct cpu *cpu, enum mem_context context, unsigned i)
{
        unsigned set = writer_set(cpu->tlbs[context].gpa[i]);
        unsigned number = 1 + context * TLB_ENTRIES + i;
        uint16_t *places = cpu->writers.places[set], *free = NULL;
        for (unsigned k = 0; k < WRITER_WAYS; k++) {
                if (places[k] == number)
                        return;
                if (!places[k] || !writes(cpu, places[k], set))
                        free = &places[k];
        }
        if (free)
                *free = (uint16_t)number;
        else
                cpu->writers.more[set] = true;
}

static void forbid_writes_at(struct cpu *cpu, unsigned number, uint64_t page)
{
        struct tlb *t = &cpu->tlbs[(number - 1) / TLB_ENTRIES];
        unsigned i = (number - 1) % TLB_ENTRIES;
        if (t->gpa[i] >> 12 == page)
                t->write[i] = tlb_nothing(i);
}

static void forbid_writes(struct cpu *cpu, uint64_t page)
{
        unsigned set = writer_set(page << 12);
        for (unsigned k = 0; k < WRITER_WAYS; k++)
                if (cpu->writers.places[set][k])
                        forbid_writes_at(cpu, cpu->writers.places[set][k], page);
        if (!cpu->writers.more[set])
                return;
        cpu->writers.more[set] = false;
        for (unsigned number = 1; number <= CTX_CHECKED * TLB_ENTRIES; number++) {
                forbid_writes_at(cpu, number, page);
                if (writes(cpu, number, set))
                        note_writer(cpu, (number - 1) / TLB_ENTRIES, (number - 1) % TLB_ENTRIES);
        }
}

/* ---- filling ---- */

static void tlb_fill(struct cpu *cpu, uint64_t linear, const struct walk *w,
                     enum mem_context context)
{
        struct tlb *t = &cpu->tlbs[context];
        unsigned i = tlb_index(linear);
        uint64_t tag = tlb_tag(linear), gpa = w->gpa & ~PAGE_MASK;
        uint8_t *host = cpu_ram(cpu, gpa, false);
        if (!host)
                return;
        bool keep = t->gpa[i] == (gpa | w->global) && (t->read[i] == tag || t->fetch[i] == tag);
        if (!keep)
                tlb_drop(t, i);
        t->host[i] = host;
        t->gpa[i] = gpa | w->global;
        (w->global ? t->used_global : t->used)[i / 64] |= 1ull << i % 64;
        if (allowed(cpu, w, ACCESS_READ, context))
                t->read[i] = tag;
        if (allowed(cpu, w, ACCESS_FETCH, context))
                t->fetch[i] = tag;
        bool code = gpa >> 12 < cpu->memory->pages &&
                    __atomic_load_n(&cpu->memory->code_generation[gpa >> 12], __ATOMIC_ACQUIRE) & 1;
        if (w->dirty && !code && cpu_ram(cpu, gpa, true) &&
            allowed(cpu, w, ACCESS_WRITE, context)) {
                t->write[i] = tag;
                note_writer(cpu, context, i);
        }
}

uint64_t cpu_translate(struct cpu *cpu, uint64_t linear, enum mem_access access,
                       enum mem_context context)
{
        enum mem_context table = context;
        if (context == CTX_CHECKED)
                context = cpu->cpl == 3           ? CTX_USER
                          : cpu->s.rflags & RF_AC ? CTX_KERNEL_AC
                                                  : CTX_KERNEL;
        cpu->counters.tlb_misses++;
        struct walk w = walk(cpu, linear, 0);
        if (!w.present || !allowed(cpu, &w, access, context))
                page_fault(cpu, linear, &w, access, context);
        if (cpu->s.cr0 & CR0_PG && (!w.accessed || (access == ACCESS_WRITE && !w.dirty))) {
                walk(cpu, linear, access == ACCESS_WRITE ? PTE_A | PTE_D : PTE_A);
                w.dirty |= access == ACCESS_WRITE;
        }
        if (table != CTX_CHECKED)
                tlb_fill(cpu, linear, &w, context);
        return w.gpa;
}

/* ---- TLB maintenance ---- */

void cpu_tlb_init(struct cpu *cpu)
{
        for (unsigned c = 0; c < CTX_COUNT; c++)
                for (unsigned i = 0; i < TLB_ENTRIES; i++)
                        tlb_drop(&cpu->tlbs[c], i);
}

/* Drops the marked places whose entry is (not) global; an entry may have changed its
 * kind since, and is then marked in the other map too. */
static void tlb_flush_marked(struct tlb *t, uint64_t *used, bool globals)
{
        for (unsigned word = 0; word < TLB_ENTRIES / 64; word++) {
                for (uint64_t bits = used[word]; bits; bits &= bits - 1) {
                        unsigned i = word * 64 + (unsigned)__builtin_ctzll(bits);
                        if (globals == (t->gpa[i] & 1))
                                tlb_drop(t, i);
                }
                used[word] = 0;
        }
}

void cpu_tlb_flush(struct cpu *cpu, bool global_too)
{
        cpu->counters.tlb_flushes++;
        for (unsigned c = 0; c < CTX_CHECKED; c++) {
                tlb_flush_marked(&cpu->tlbs[c], cpu->tlbs[c].used, false);
                if (global_too)
                        tlb_flush_marked(&cpu->tlbs[c], cpu->tlbs[c].used_global, true);
        }
        cpu->epoch++;
        cpu->came_from = NULL;
        cpu_jumps_flush(cpu, global_too);
        cpu_mode_changed(cpu);
}

void cpu_tlb_flush_page(struct cpu *cpu, uint64_t linear)
{
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                tlb_drop(&cpu->tlbs[c], tlb_index(linear));
        cpu_jumps_flush(cpu, linear >> 63);
        cpu->epoch++;
        cpu_mode_changed(cpu);
}

/* Code of this page is about to be decoded: stores to it must be seen. */
void cpu_mark_code(struct cpu *cpu, uint64_t gpa)
{
        uint64_t page = gpa >> 12;
        if (page >= cpu->memory->pages)
                return;
        uint32_t *at = &cpu->memory->code_generation[page];
        if (__atomic_load_n(at, __ATOMIC_ACQUIRE) & 1) /* most often, and waits for no store */
                return;
        uint32_t old = __atomic_fetch_or(at, 1, __ATOMIC_SEQ_CST);
        if (old & 1)
                return;
        forbid_writes(cpu, page);
        tell_others(cpu->memory, cpu);
}

/* Forbids writes at a place of the TLB to a page that holds code. True: the code counts as
 * changed. */
static bool catch_up_at(struct cpu *cpu, struct tlb *t, unsigned i)
{
        uint64_t page = t->gpa[i] >> 12;
        if (t->write[i] == tlb_nothing(i) || page >= cpu->memory->pages ||
            !(__atomic_load_n(&cpu->memory->code_generation[page], __ATOMIC_ACQUIRE) & 1))
                return false;
        t->write[i] = tlb_nothing(i);
        return page_written(cpu->memory, page);
}

/* Another vCPU decoded code of pages that this one may still write to unseen: such
 * entries go, and since it may have written already, the code counts as changed.
 * It is asked for before this vCPU sends an interrupt by which it would tell the
 * other that it changed code. */
void cpu_code_catch_up(struct cpu *cpu)
{
        if (!(atomic_fetch_and(&cpu->pending, ~PEND_CODE) & PEND_CODE))
                return;
        bool changed = false;
        for (unsigned c = 0; c < CTX_CHECKED; c++) {
                struct tlb *t = &cpu->tlbs[c];
                for (unsigned word = 0; word < TLB_ENTRIES / 64; word++)
                        for (uint64_t bits = t->used[word] | t->used_global[word]; bits;
                             bits &= bits - 1)
                                changed |= catch_up_at(cpu, t,
                                                       word * 64 + (unsigned)__builtin_ctzll(bits));
        }
        if (changed)
                tell_others(cpu->memory, cpu);
        cpu_jumps_flush(cpu, true);
        if (cpu->step)
                cpu_stop_block(cpu); /* its own page may be among them */
}

/* ---- linear memory, the slow way ---- */

static unsigned watch_hits(const uint64_t dr[4], uint64_t dr7, uint64_t linear, unsigned size,
                           bool write)
{
        unsigned hits = 0;
        for (unsigned i = 0; i < 4; i++) {
                unsigned control = (unsigned)(dr7 >> (16 + 4 * i)) & 15;
                unsigned type = control & 3;
                static const uint8_t lengths[4] = { 1, 2, 8, 4 };
                unsigned length = lengths[control >> 2];
                if (!(dr7 >> (2 * i) & 3) || !(type == 3 || (type == 1 && write)))
                        continue;
                uint64_t first = dr[i] & ~(uint64_t)(length - 1);
                if (linear < first + length && first < linear + size)
                        hits |= 1u << i;
        }
        return hits;
}

/* Whether this access of the instruction goes through SS: #SS instead of #GP. */
static bool stack_access(const struct cpu *cpu, const struct insn *i, uint64_t linear)
{
        bool uses_stack = i->gpr_written >> CPU_RSP & 1;
        if (!i->is_mem)
                return uses_stack;
        uint64_t rsp = cpu->s.gpr[CPU_RSP];
        bool implied = i->class == CLASS_CONTROL || i->op == OP_PUSH || i->op == OP_POP;
        return i->seg == CPU_SS ||
               (uses_stack && implied && (linear == rsp || linear == rsp - i->opsize));
}

static void check_access(struct cpu *cpu, uint64_t linear, unsigned size, bool write)
{
        if (!cpu->legacy && (!canonical(linear) || !canonical(linear + size - 1))) {
                bool stack = cpu->step && stack_access(cpu, &cpu->step->i, linear);
                cpu_raise_error(cpu, stack ? VEC_SS : VEC_GP, 0);
        }
        if (cpu->context != CTX_CHECKED)
                return;
        if (cpu->cpl == 3 && cpu->s.cr0 & CR0_AM && cpu->s.rflags & RF_AC && size <= 8 &&
            linear & (size - 1))
                cpu_raise_error(cpu, VEC_AC, 0);
        cpu->debug_hits |= watch_hits(cpu->s.dr, cpu->s.dr7, linear, size, write);
        cpu->stop_hits |= watch_hits(cpu->debug.dr, cpu->debug.dr7, linear, size, write);
}

/* Bytes of [linear, +size) in its first page. */
static unsigned in_page(uint64_t linear, unsigned size)
{
        unsigned room = PAGE_SIZE_BYTES - (unsigned)(linear & PAGE_MASK);
        return size < room ? size : room;
}

static uint64_t wrap(const struct cpu *cpu, uint64_t linear)
{
        return cpu->long_mode ? linear : linear & 0xffffffff;
}

static void load_as(struct cpu *cpu, uint64_t linear, void *bytes, unsigned size,
                    enum mem_context context)
{
        unsigned first = in_page(linear, size);
        uint64_t gpa = cpu_translate(cpu, linear, ACCESS_READ, context);
        uint64_t gpa2 = 0;
        if (first < size)
                gpa2 = cpu_translate(cpu, wrap(cpu, linear + first), ACCESS_READ, context);
        physical_read(cpu, gpa, bytes, first);
        if (first < size)
                physical_read(cpu, gpa2, (uint8_t *)bytes + first, size - first);
}

static void store_as(struct cpu *cpu, uint64_t linear, const void *bytes, unsigned size,
                     enum mem_context context)
{
        unsigned first = in_page(linear, size);
        uint64_t gpa = cpu_translate(cpu, linear, ACCESS_WRITE, context);
        uint64_t gpa2 = 0;
        if (first < size)
                gpa2 = cpu_translate(cpu, wrap(cpu, linear + first), ACCESS_WRITE, context);
        physical_write(cpu, gpa, bytes, first);
        if (first < size)
                physical_write(cpu, gpa2, (const uint8_t *)bytes + first, size - first);
}

void cpu_load_slow(struct cpu *cpu, uint64_t linear, void *bytes, unsigned size)
{
        check_access(cpu, linear, size, false);
        load_as(cpu, linear, bytes, size, cpu->context);
}

void cpu_store_slow(struct cpu *cpu, uint64_t linear, const void *bytes, unsigned size)
{
        check_access(cpu, linear, size, true);
        store_as(cpu, linear, bytes, size, cpu->context);
}

struct span cpu_span(struct cpu *cpu, uint64_t linear, unsigned size_bytes, bool write)
{
        uint8_t *at = mem_host(cpu, linear, 1, write);
        unsigned size = in_page(linear, size_bytes);
        if (!at) {
                check_access(cpu, linear, 1, write);
                enum mem_access access = write ? ACCESS_WRITE : ACCESS_READ;
                uint64_t gpa = cpu_translate(cpu, linear, access, cpu->context);
                at = mem_host(cpu, linear, 1, write);
                if (!at)
                        return (struct span){ cpu_ram(cpu, gpa, write), size, gpa, write };
        }
        while (size < size_bytes && !cpu->legacy &&
               mem_host(cpu, linear + size, 1, write) == at + size)
                size += in_page(linear + size, size_bytes - size);
        return (struct span){ .at = at, .size_bytes = size };
}

/* What the supervisor's table knows of these bytes. */
static uint8_t *system_host(struct cpu *cpu, uint64_t linear, unsigned size, bool write)
{
        const struct tlb *t = &cpu->tlbs[CTX_KERNEL];
        unsigned i = tlb_index(linear);
        uint64_t offset = linear + (write ? t->write[i] : t->read[i]);
        return offset <= PAGE_SIZE_BYTES - size ? t->host[i] + offset : NULL;
}

void cpu_load_system(struct cpu *cpu, uint64_t linear, void *bytes, unsigned size)
{
        linear = wrap(cpu, linear);
        const uint8_t *host = system_host(cpu, linear, size, false);
        if (likely(host)) {
                memcpy(bytes, host, size);
                return;
        }
        if (cpu->long_mode && !canonical(linear))
                cpu_gp(cpu);
        load_as(cpu, linear, bytes, size, CTX_KERNEL);
}

void cpu_store_system(struct cpu *cpu, uint64_t linear, const void *bytes, unsigned size)
{
        linear = wrap(cpu, linear);
        uint8_t *host = system_host(cpu, linear, size, true);
        if (likely(host)) {
                memcpy(host, bytes, size);
                return;
        }
        if (cpu->long_mode && !canonical(linear))
                cpu_gp(cpu);
        store_as(cpu, linear, bytes, size, CTX_KERNEL);
}

void cpu_probe_write(struct cpu *cpu, uint64_t linear, unsigned size)
{
        if (mem_host(cpu, linear, size, true))
                return;
        check_access(cpu, linear, size, true);
        unsigned first = in_page(linear, size);
        cpu_translate(cpu, linear, ACCESS_WRITE, cpu->context);
        if (first < size)
                cpu_translate(cpu, wrap(cpu, linear + first), ACCESS_WRITE, cpu->context);
}

/* ---- fetch ---- */

uint8_t *cpu_fetch_page(struct cpu *cpu, uint64_t linear, uint64_t *ret_gpa)
{
        enum mem_context context = cpu->cpl == 3 ? CTX_USER : CTX_KERNEL;
        const struct tlb *t = &cpu->tlbs[context];
        unsigned i = tlb_index(linear);
        if (t->fetch[i] == tlb_tag(linear)) {
                *ret_gpa = (t->gpa[i] & ~PAGE_MASK) | (linear & PAGE_MASK);
                return t->host[i] + (linear & PAGE_MASK);
        }
        if (cpu->long_mode && !canonical(linear))
                cpu_gp(cpu);
        *ret_gpa = cpu_translate(cpu, linear, ACCESS_FETCH, context);
        return cpu_ram(cpu, *ret_gpa, false);
}

/* ---- debugger ---- */

size_t cpu_peek(struct cpu *cpu, uint64_t linear, void *bytes, size_t size)
{
        size_t done = 0;
        while (done < size) {
                uint64_t at = wrap(cpu, linear + done);
                struct walk w = walk(cpu, at, 0);
                const uint8_t *host = w.present ? cpu_ram(cpu, w.gpa, false) : NULL;
                if (!host)
                        break;
                unsigned part = in_page(at, (unsigned)(size - done > 4096 ? 4096 : size - done));
                memcpy((uint8_t *)bytes + done, host, part);
                done += part;
        }
        return done;
}

/* ---- segmentation outside 64-bit code ---- */

uint64_t cpu_linear_legacy(struct cpu *cpu, unsigned seg, uint64_t offset, unsigned size,
                           bool write)
{
        const struct cpu_segment *d = &cpu->s.seg[seg];
        int vector = seg == CPU_SS ? VEC_SS : VEC_GP;
        uint32_t type = d->attributes & 15;
        if (cpu->s.cr0 & CR0_PE) {
                if (d->attributes & ATTR_UNUSABLE)
                        cpu_gp(cpu);
                bool code = type & 8, rw = type & 2;
                if ((write && (code || !rw)) || (!write && code && !rw))
                        cpu_gp(cpu);
        }
        uint32_t low = (uint32_t)offset;
        uint64_t last = (uint64_t)low + (size ? size - 1 : 0);
        if ((type & 12) == 4) { /* expand down */
                uint64_t top = d->attributes & ATTR_DB ? 0xffffffff : 0xffff;
                if (low <= d->limit || last > top)
                        cpu_raise_error(cpu, vector, 0);
        } else if (last > d->limit) {
                cpu_raise_error(cpu, vector, 0);
        }
        return (uint32_t)(d->base + low);
}
