/* Hardware task switches: far JMP and CALL to a task, a task gate in the IDT, and IRET
 * out of a nested task. There are none in long mode.
 *
 * Order. What can fault in the old task is done first: the new TSS is read whole and the
 * old one written, which repeating undoes no harm. Then the switch is committed: busy
 * bits, back link, TR, CR3, registers. Segments are loaded last, and what is wrong with
 * them is an #TS (or #NP, #SS) of the new task, with nothing left of the old one.
 * Source: Intel SDM volume 3, chapter 8 "Task Management".
 */
#include "cpu/core.h"

#include <string.h>

#define TYPE_BUSY  2u
#define TYPE_32    8u
#define INDEX(sel) ((uint32_t)(sel)&0xfffcu)
#define DR7_LOCAL  0x155ull /* L0 to L3, LE of DR7 */
#define DR6_BT     0x8000u

/* Where things are in the two forms of a task state segment. */
struct tss_layout {
        uint8_t word, minimum_limit, ip, flags, registers, segments, segment_stride, ldt;
};
static const struct tss_layout layout16 = { 2, 0x2b, 0x0e, 0x10, 0x12, 0x22, 2, 0x2a };
static const struct tss_layout layout32 = { 4, 0x67, 0x20, 0x24, 0x28, 0x48, 4, 0x60 };
#define TSS_CR3  0x1c
#define TSS_TRAP 0x64
#define TSS_SIZE 0x68

struct task {
        const struct tss_layout *layout;
        uint8_t bytes[TSS_SIZE];
};

static uint32_t field(const struct task *t, unsigned at, unsigned size)
{
        uint32_t value = 0;
        memcpy(&value, t->bytes + at, size);
        return value;
}

static unsigned segments_of(const struct tss_layout *l)
{
        return l == &layout32 ? CPU_SEGS : CPU_FS; /* the 286 has no FS and GS */
}

static const struct tss_layout *layout_of(uint32_t attributes)
{
        return attributes & TYPE_32 ? &layout32 : &layout16;
}

/* The descriptor of the task to enter. */
static struct cpu_segment task_segment(struct cpu *cpu, uint16_t selector, enum task_switch kind)
{
        int vector = kind == TASK_IRET ? VEC_TS : VEC_GP;
        uint64_t d;
        if (selector & 4 || cpu_read_descriptor(cpu, selector, &d) < 0)
                cpu_raise_error(cpu, vector, INDEX(selector));
        struct cpu_segment s = cpu_segment_from(d, selector);
        unsigned wanted = kind == TASK_IRET ? 1 | TYPE_BUSY : 1;
        if ((s.attributes & 0x1f & ~TYPE_32) != wanted)
                cpu_raise_error(cpu, vector, INDEX(selector));
        if (!(s.attributes & ATTR_P))
                cpu_raise_error(cpu, VEC_NP, INDEX(selector));
        if (s.limit < layout_of(s.attributes)->minimum_limit)
                cpu_raise_error(cpu, VEC_TS, INDEX(selector));
        return s;
}

static void set_busy(struct cpu *cpu, uint16_t selector, bool busy)
{
        uint64_t at = cpu->s.gdtr.base + (selector & 0xfff8u) + 5;
        uint8_t type;
        cpu_load_system(cpu, at, &type, 1);
        type = (uint8_t)((type & ~TYPE_BUSY) | (busy ? TYPE_BUSY : 0));
        cpu_store_system(cpu, at, &type, 1);
}

static void leave(struct cpu *cpu, uint64_t flags)
{
        const struct tss_layout *l = layout_of(cpu->s.tr.attributes);
        uint8_t bytes[TSS_SIZE] = { 0 };
        uint32_t ip = (uint32_t)cpu->s.rip, image = (uint32_t)flags;
        memcpy(bytes + l->ip, &ip, l->word);
        memcpy(bytes + l->flags, &image, l->word);
        for (unsigned i = 0; i < 8; i++)
                memcpy(bytes + l->registers + i * l->word, &cpu->s.gpr[i], l->word);
        for (unsigned i = 0; i < segments_of(l); i++)
                memcpy(bytes + l->segments + i * l->segment_stride, &cpu->s.seg[i].selector, 2);
        cpu_store_system(cpu, cpu->s.tr.base + l->ip, bytes + l->ip, (unsigned)l->ldt - l->ip);
}

static void load_registers(struct cpu *cpu, const struct task *t, uint32_t flags)
{
        const struct tss_layout *l = t->layout;
        cpu->s.rip = field(t, l->ip, l->word);
        for (unsigned i = 0; i < 8; i++) {
                uint64_t above = l == &layout16 ? cpu->s.gpr[i] & 0xffff0000u : 0;
                cpu->s.gpr[i] = above | field(t, l->registers + i * l->word, l->word);
        }
        cpu->s.rflags = (flags & (FLAGS_ARITHMETIC | FLAG_TF | FLAG_IF | FLAG_DF | RF_NT | RF_RF |
                                  RF_AC | RF_IOPL | RF_ID)) |
                        RF_FIXED;
        if (l == &layout32 && cpu->s.cr0 & CR0_PG)
                cpu_load_cr3(cpu, field(t, TSS_CR3, 4));
}

static void load_code(struct cpu *cpu, uint16_t selector)
{
        uint64_t d;
        if (!INDEX(selector) || cpu_read_descriptor(cpu, selector, &d) < 0)
                cpu_raise_error(cpu, VEC_TS, INDEX(selector));
        struct cpu_segment s = cpu_segment_from(d, selector);
        unsigned dpl = ATTR_DPL(s.attributes), rpl = selector & 3;
        bool conforming = s.attributes & 4;
        if ((s.attributes & 0x18) != 0x18 || (conforming ? dpl > rpl : dpl != rpl))
                cpu_raise_error(cpu, VEC_TS, INDEX(selector));
        if (!(s.attributes & ATTR_P))
                cpu_raise_error(cpu, VEC_NP, INDEX(selector));
        s.attributes |= 1;
        cpu->s.seg[CPU_CS] = s;
}

/* Selectors are all in place before the first descriptor is looked at: what a fault's
 * handler sees is the new task. */
static void load_segments(struct cpu *cpu, const struct task *t)
{
        const struct tss_layout *l = t->layout;
        uint16_t selector[CPU_SEGS] = { 0 };
        for (unsigned i = 0; i < segments_of(l); i++)
                selector[i] = (uint16_t)field(t, l->segments + i * l->segment_stride, 2);
        unsigned cpl = selector[CPU_CS] & 3;
        for (unsigned i = 0; i < CPU_SEGS; i++)
                cpu->s.seg[i] = (struct cpu_segment){ .selector = selector[i],
                                                      .attributes = ATTR_UNUSABLE | cpl << 5 };
        cpu->s.ldtr = (struct cpu_segment){ .attributes = ATTR_UNUSABLE };
        cpu_mode_changed(cpu);
        cpu_load_ldt_for_task(cpu, (uint16_t)field(t, l->ldt, 2));
        load_code(cpu, selector[CPU_CS]);
        cpu->s.seg[CPU_SS] = cpu_stack_for_interrupt(cpu, selector[CPU_SS], cpl);
        cpu_mode_changed(cpu);
        static const uint8_t data[] = { CPU_ES, CPU_DS, CPU_FS, CPU_GS };
        for (unsigned i = 0; i < sizeof(data); i++)
                cpu_load_data_for_task(cpu, data[i], selector[data[i]]);
        if (cpu->s.rip > cpu->s.seg[CPU_CS].limit)
                cpu_gp(cpu);
}

void cpu_task_switch(struct cpu *cpu, uint16_t selector, enum task_switch kind, uint64_t flags)
{
        if (cpu->long_mode)
                cpu_raise_error(cpu, VEC_GP, INDEX(selector));
        struct cpu_segment s = task_segment(cpu, selector, kind);
        struct task t = { .layout = layout_of(s.attributes) };
        uint16_t old = cpu->s.tr.selector;
        cpu_load_system(cpu, s.base, t.bytes, t.layout->minimum_limit + 1u);
        uint32_t new_flags = field(&t, t.layout->flags, t.layout->word);
        if (new_flags & RF_VM)
                cpu_unimplemented(cpu); /* virtual-8086 mode */
        leave(cpu, kind == TASK_IRET ? flags & ~(uint64_t)RF_NT : flags);
        if (kind != TASK_CALL)
                set_busy(cpu, old, false);
        if (kind == TASK_CALL) {
                cpu_store_system(cpu, s.base, &old, 2);
                new_flags |= RF_NT;
        }
        set_busy(cpu, selector, true);
        s.attributes |= TYPE_BUSY;
        cpu->s.tr = s;
        cpu->s.cr0 |= CR0_TS;
        cpu->s.dr7 &= ~DR7_LOCAL;
        cpu->step = NULL; /* from here on faults are the new task's */
        load_registers(cpu, &t, new_flags);
        load_segments(cpu, &t);
        if (t.layout == &layout32 && field(&t, TSS_TRAP, 2) & 1)
                cpu_raise_debug(cpu, DR6_BT);
}
