/* Linear memory, the slow way: what the TLB did not have. */
#include "cpu/mmu.h"

#include <string.h>

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

/* Where the TLB of a context has these bytes, which are within a page. */
static uint8_t *host_in(struct cpu *cpu, uint64_t linear, unsigned size, bool write,
                        enum mem_context context)
{
        const struct tlb *t = &cpu->tlbs[context];
        unsigned i = tlb_index(linear);
        uint64_t offset = linear + (write ? t->write[i] : t->read[i]);
        return offset <= PAGE_SIZE_BYTES - size ? t->host[i] + offset : NULL;
}

/* Bytes in two pages, both of which the TLB has. */
struct halves {
        uint8_t *first, *second;
};

static bool find_halves(struct cpu *cpu, uint64_t linear, unsigned first, unsigned size, bool write,
                        enum mem_context context, struct halves *ret)
{
        if (first == size)
                return false;
        uint64_t next = wrap(cpu, linear + first);
        ret->first = host_in(cpu, linear, first, write, context);
        ret->second = ret->first ? host_in(cpu, next, size - first, write, context) : NULL;
        return ret->second;
}

static void load_as(struct cpu *cpu, uint64_t linear, void *bytes, unsigned size,
                    enum mem_context context)
{
        unsigned first = in_page(linear, size);
        struct halves h;
        if (find_halves(cpu, linear, first, size, false, context, &h)) {
                memcpy(bytes, h.first, first);
                memcpy((uint8_t *)bytes + first, h.second, size - first);
                return;
        }
        uint64_t gpa = cpu_translate(cpu, linear, ACCESS_READ, context);
        uint64_t gpa2 = 0;
        if (first < size)
                gpa2 = cpu_translate(cpu, wrap(cpu, linear + first), ACCESS_READ, context);
        cpu_physical_read(cpu, gpa, bytes, first);
        if (first < size)
                cpu_physical_read(cpu, gpa2, (uint8_t *)bytes + first, size - first);
}

static void store_as(struct cpu *cpu, uint64_t linear, const void *bytes, unsigned size,
                     enum mem_context context)
{
        unsigned first = in_page(linear, size);
        struct halves h;
        if (find_halves(cpu, linear, first, size, true, context, &h)) {
                memcpy(h.first, bytes, first);
                memcpy(h.second, (const uint8_t *)bytes + first, size - first);
                return;
        }
        uint64_t gpa = cpu_translate(cpu, linear, ACCESS_WRITE, context);
        uint64_t gpa2 = 0;
        if (first < size)
                gpa2 = cpu_translate(cpu, wrap(cpu, linear + first), ACCESS_WRITE, context);
        cpu_physical_write(cpu, gpa, bytes, first);
        if (first < size)
                cpu_physical_write(cpu, gpa2, (const uint8_t *)bytes + first, size - first);
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

void cpu_load_system(struct cpu *cpu, uint64_t linear, void *bytes, unsigned size)
{
        linear = wrap(cpu, linear);
        const uint8_t *host = host_in(cpu, linear, size, false, CTX_KERNEL);
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
        uint8_t *host = host_in(cpu, linear, size, true, CTX_KERNEL);
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
                struct walk w = cpu_walk(cpu, at, 0);
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
