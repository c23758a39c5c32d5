/* The software TLB: filled, flushed, and told of pages that hold code. */
#include "cpu/mmu.h"
#include "cpu/translate.h"

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

/* ---- larger pages ---- */

static uint64_t *large_place(struct cpu *cpu, uint64_t region)
{
        return &cpu->larger.large[(region ^ region >> 10 ^ region >> 20) & (LARGE_ENTRIES - 1)];
}

/* Takes away what is of a region of 2 MiB, whose pages are next to each other. */
static void drop_region(struct cpu *cpu, uint64_t region)
{
        unsigned first = tlb_index(region << 21);
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                for (unsigned i = first; i < first + 512; i++)
                        if (cpu->tlbs[c].gpa[i] & TLB_LARGE)
                                tlb_drop(&cpu->tlbs[c], i);
}

static void note_larger(struct cpu *cpu, uint64_t linear, unsigned size)
{
        struct larger_pages *l = &cpu->larger;
        if (size == TLB_LARGE) {
                uint64_t *place = large_place(cpu, linear >> 21), known = (linear >> 21) + 1;
                if (*place && *place != known)
                        drop_region(cpu, *place - 1);
                *place = known;
                return;
        }
        uint64_t known = (linear >> 30) + 1;
        for (unsigned i = 0; i < HUGE_ENTRIES; i++)
                if (l->huge[i] == known)
                        return;
        uint64_t *place = &l->huge[l->next_huge++ % HUGE_ENTRIES];
        if (*place)
                cpu_tlb_flush(cpu, true);
        *place = known;
}

/* INVLPG of a page of which there are parts at other places. False: it is none. */
static bool flush_larger(struct cpu *cpu, uint64_t linear)
{
        bool found = false;
        for (unsigned i = 0; i < HUGE_ENTRIES; i++) {
                if (cpu->larger.huge[i] != (linear >> 30) + 1)
                        continue;
                found = true;
                cpu->larger.huge[i] = 0;
                cpu_tlb_flush(cpu, true);
        }
        /* Outside of PAE a page has two regions. */
        uint64_t pair = cpu->s.cr4 & CR4_PAE ? 0 : 1;
        for (uint64_t region = linear >> 21 & ~pair; region <= (linear >> 21 | pair); region++) {
                uint64_t *place = large_place(cpu, region);
                if (*place != region + 1)
                        continue;
                *place = 0;
                drop_region(cpu, region);
                found = true;
        }
        return found;
}

/* ---- filling ---- */

static bool is_code(const struct cpu *cpu, uint64_t gpa)
{
        return gpa >> 12 < cpu->memory->pages &&
               __atomic_load_n(&cpu->memory->code_generation[gpa >> 12], __ATOMIC_ACQUIRE) & 1;
}

static void tlb_fill(struct cpu *cpu, uint64_t linear, const struct walk *w,
                     enum mem_context context)
{
        struct tlb *t = &cpu->tlbs[context];
        unsigned i = tlb_index(linear);
        uint64_t tag = tlb_tag(linear), gpa = w->gpa & ~PAGE_MASK;
        uint64_t page = gpa | (w->global ? TLB_GLOBAL : 0) | w->size;
        uint8_t *host = cpu_ram(cpu, gpa, false);
        if (!host)
                return;
        if (w->size)
                note_larger(cpu, linear, w->size);
        bool keep = t->gpa[i] == page && (t->read[i] == tag || t->fetch[i] == tag);
        if (!keep)
                tlb_drop(t, i);
        t->host[i] = host;
        t->gpa[i] = page;
        tlb_note_key(t, i, w->key);
        (w->global ? t->used_global : t->used)[i / 64] |= 1ull << i % 64;
        if (cpu_walk_allows(cpu, w, ACCESS_READ, context))
                t->read[i] = tag;
        if (cpu_walk_allows(cpu, w, ACCESS_FETCH, context))
                t->fetch[i] = tag;
        if (w->dirty && cpu_write_noted(cpu->memory, gpa >> 12) && !is_code(cpu, gpa) &&
            cpu_ram(cpu, gpa, true) && cpu_walk_allows(cpu, w, ACCESS_WRITE, context)) {
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
        struct walk w = cpu_walk(cpu, linear, 0);
        if (!w.present || !cpu_walk_allows(cpu, &w, access, context))
                cpu_page_fault(cpu, linear, &w, access, context);
        if (cpu->s.cr0 & CR0_PG && (!w.accessed || (access == ACCESS_WRITE && !w.dirty))) {
                cpu_walk(cpu, linear, access == ACCESS_WRITE ? PTE_A | PTE_D : PTE_A);
                w.dirty |= access == ACCESS_WRITE;
        }
        if (access == ACCESS_WRITE)
                cpu_note_write(cpu->memory, w.gpa >> 12);
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
                        if (globals == (t->gpa[i] & TLB_GLOBAL))
                                tlb_drop(t, i);
                }
                used[word] = 0;
        }
}

void cpu_tlb_flush(struct cpu *cpu, bool global_too)
{
        cpu->counters.tlb_flushes++;
        if (global_too)
                cpu_spaces_forget(cpu);
        for (unsigned c = 0; c < CTX_CHECKED; c++) {
                tlb_flush_marked(&cpu->tlbs[c], cpu->tlbs[c].used, false);
                if (global_too)
                        tlb_flush_marked(&cpu->tlbs[c], cpu->tlbs[c].used_global, true);
        }
        cpu_new_epoch(cpu);
        cpu->came_from = NULL;
        cpu_jumps_flush(cpu, global_too);
        cpu_mode_changed(cpu);
}

void cpu_watch_writes(struct cpu *cpu)
{
        cpu_tlb_flush(cpu, true);
}

void cpu_tlb_flush_page(struct cpu *cpu, uint64_t linear)
{
        for (unsigned c = 0; c < CTX_CHECKED; c++)
                tlb_drop(&cpu->tlbs[c], tlb_index(linear));
        if (flush_larger(cpu, linear) || linear >> 63)
                cpu_jumps_flush(cpu, linear >> 63);
        else
                cpu_jumps_forget_linear(cpu, linear);
        cpu_new_epoch(cpu);
        cpu_mode_changed(cpu);
}

/* What is returned is what was marked, not what is read a moment later: by then another vCPU may
 * have written, and even numbers do not move on with further stores. */
uint32_t cpu_mark_code(struct cpu *cpu, uint64_t gpa)
{
        uint64_t page = gpa >> 12;
        if (page >= cpu->memory->pages)
                return 0;
        uint32_t *at = &cpu->memory->code_generation[page];
        uint32_t old = __atomic_load_n(at, __ATOMIC_ACQUIRE);
        if (old & 1) /* most often, and waits for no store */
                return old;
        old = __atomic_fetch_or(at, 1, __ATOMIC_SEQ_CST);
        if (old & 1)
                return old;
        forbid_writes(cpu, page);
        cpu_tell_others(cpu->memory, cpu);
        return old | 1;
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
        return cpu_page_written(cpu->memory, page);
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
                cpu_tell_others(cpu->memory, cpu);
        cpu_jumps_flush(cpu, true);
        if (cpu->step)
                cpu_stop_block(cpu); /* its own page may be among them */
}

/* ---- address spaces that come and go ---- */

/* A place that is not global, of the user's or the kernel's, to be filled again later. False: it
 * is not worth it or not possible. */
static bool save_at(struct cpu *cpu, enum mem_context context, unsigned i, struct saved_page *ret)
{
        struct tlb *t = &cpu->tlbs[context];
        uint64_t nothing = tlb_nothing(i);
        uint64_t tag = t->read[i] != nothing ? t->read[i] : t->fetch[i];
        if (tag == nothing || t->key[i] || t->gpa[i] & TLB_HUGE)
                return false;
        uint64_t rights = (t->read[i] == tag ? SAVED_READ : 0) |
                          (t->write[i] == tag ? SAVED_WRITE : 0) |
                          (t->fetch[i] == tag ? SAVED_FETCH : 0);
        *ret = (struct saved_page){ -tag | (uint64_t)context << 4 | rights, t->host[i], t->gpa[i] };
        return true;
}

unsigned cpu_tlb_take(struct cpu *cpu, struct saved_page *ret, unsigned room)
{
        unsigned length = 0;
        bool changed = false;
        for (unsigned c = 0; c < CTX_CHECKED; c++) {
                struct tlb *t = &cpu->tlbs[c];
                for (unsigned word = 0; word < TLB_ENTRIES / 64; word++) {
                        for (uint64_t bits = t->used[word]; bits; bits &= bits - 1) {
                                unsigned i = word * 64 + (unsigned)__builtin_ctzll(bits);
                                if (t->gpa[i] & TLB_GLOBAL)
                                        continue;
                                changed |= catch_up_at(cpu, t, i);
                                if (length < room && save_at(cpu, c, i, &ret[length]))
                                        length++;
                                tlb_drop(t, i);
                        }
                        t->used[word] = 0;
                }
        }
        if (changed)
                cpu_tell_others(cpu->memory, NULL);
        return length;
}

void cpu_tlb_give(struct cpu *cpu, const struct saved_page *pages, unsigned length)
{
        for (unsigned k = 0; k < length; k++) {
                const struct saved_page *p = &pages[k];
                enum mem_context context = p->linear >> 4 & 3;
                struct tlb *t = &cpu->tlbs[context];
                unsigned i = tlb_index(p->linear);
                uint64_t nothing = tlb_nothing(i), tag = tlb_tag(p->linear);
                if (t->read[i] != nothing || t->fetch[i] != nothing)
                        continue;
                if (p->gpa & TLB_LARGE)
                        note_larger(cpu, p->linear, TLB_LARGE);
                bool write = p->linear & SAVED_WRITE && !is_code(cpu, p->gpa);
                t->host[i] = p->host;
                t->gpa[i] = p->gpa;
                tlb_note_key(t, i, 0);
                t->used[i / 64] |= 1ull << i % 64;
                t->read[i] = p->linear & SAVED_READ ? tag : nothing;
                t->fetch[i] = p->linear & SAVED_FETCH ? tag : nothing;
                t->write[i] = write ? tag : nothing;
                if (write)
                        note_writer(cpu, context, i);
        }
}
