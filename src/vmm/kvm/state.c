#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/kvm/kvm.h"

#define MSR_TSC          0x10u
#define MSR_TSC_DEADLINE 0x6e0u

/* Offsets in the local APIC's page. */
#define APIC_ID      0x20
#define APIC_VERSION 0x30
#define APIC_ISR     0x100
#define APIC_IRR     0x200

/* Offsets in the standard XSAVE area (Intel SDM, volume 1, 13.4). */
#define XSAVE_ST       32
#define XSAVE_XMM      160
#define XSAVE_HEADER   512
#define XSAVE_YMM_HIGH 576
#define XSTATE_AVX     4

/* MSRs that are a member of struct cpu_state as they are. */
static const struct {
        uint32_t index;
        uint16_t offset;
} msrs[] = {
#define MEMBER(index, member)                                                                      \
        {                                                                                          \
                index, offsetof(struct cpu_state, member)                                          \
        }
        MEMBER(0xc0000081, star),
        MEMBER(0xc0000082, lstar),
        MEMBER(0xc0000083, cstar),
        MEMBER(0xc0000084, sfmask),
        MEMBER(0xc0000102, kernel_gs_base),
        MEMBER(0x174, sysenter_cs),
        MEMBER(0x175, sysenter_esp),
        MEMBER(0x176, sysenter_eip),
        MEMBER(0x277, pat),
        MEMBER(0xc0000103, tsc_aux),
        MEMBER(0x1a0, misc_enable),
        MEMBER(0x2ff, mtrr_def_type),
#undef MEMBER
};

struct call {
        unsigned long request;
        void *argument;
        const char *what;
};

/* In this order; the first that fails ends it. */
static int call_all(const struct kvm_vcpu *v, const struct call *calls, unsigned length,
                    struct err *err)
{
        for (unsigned i = 0; i < length; i++)
                if (ioctl(v->fd, calls[i].request, calls[i].argument) < 0)
                        return err_set(err, errno, "vCPU %u: KVM's %s", v->vcpu->index,
                                       calls[i].what);
        return 0;
}

/* The list of one MSR that KVM's calls take. */
union one_msr {
        struct kvm_msrs list;
        uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

/* -ENOENT where this host's KVM has it not. */
static int get_msr(const struct kvm_vcpu *v, uint32_t index, uint64_t *ret)
{
        union one_msr one = { 0 };
        one.list.nmsrs = 1;
        one.list.entries[0].index = index;
        if (ioctl(v->fd, KVM_GET_MSRS, &one) != 1)
                return -ENOENT;
        *ret = one.list.entries[0].data;
        return 0;
}

static int set_msr(const struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
        union one_msr one = { 0 };
        one.list.nmsrs = 1;
        one.list.entries[0].index = index;
        one.list.entries[0].data = value;
        return ioctl(v->fd, KVM_SET_MSRS, &one) == 1 ? 0 : -ENOENT;
}

/* ---- registers ---- */

/* KVM's order is rax rbx rcx rdx rsi rdi rsp rbp. */
static const uint8_t order[16] = { 0, 3, 1, 2, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15 };

static void regs_to_state(const struct kvm_regs *r, struct cpu_state *s)
{
        const __u64 *from = &r->rax;
        for (unsigned i = 0; i < 16; i++)
                s->gpr[order[i]] = from[i];
        s->rip = r->rip;
        s->rflags = r->rflags;
}

static void state_to_regs(const struct cpu_state *s, struct kvm_regs *r)
{
        __u64 *to = &r->rax;
        for (unsigned i = 0; i < 16; i++)
                to[i] = s->gpr[order[i]];
        r->rip = s->rip;
        r->rflags = s->rflags;
}

static struct cpu_segment segment_of(const struct kvm_segment *k)
{
        return (struct cpu_segment){
                .base = k->base,
                .limit = k->limit,
                .selector = k->selector,
                .attributes = (uint32_t)k->type | (uint32_t)k->s << 4 | (uint32_t)k->dpl << 5 |
                              (uint32_t)k->present << 7 | (uint32_t)k->avl << 12 |
                              (uint32_t)k->l << 13 | (uint32_t)k->db << 14 | (uint32_t)k->g << 15 |
                              (uint32_t)k->unusable << 16,
        };
}

static struct kvm_segment kvm_segment_of(const struct cpu_segment *c)
{
        uint32_t a = c->attributes;
        return (struct kvm_segment){
                .base = c->base,
                .limit = c->limit,
                .selector = c->selector,
                .type = a & 15,
                .s = a >> 4 & 1,
                .dpl = a >> 5 & 3,
                .present = a >> 7 & 1,
                .avl = a >> 12 & 1,
                .l = a >> 13 & 1,
                .db = a >> 14 & 1,
                .g = a >> 15 & 1,
                .unusable = a >> 16 & 1,
        };
}

static void sregs_to_state(const struct kvm_sregs *k, struct cpu_state *s)
{
        const struct kvm_segment *const segments[] = { &k->es, &k->cs, &k->ss,
                                                       &k->ds, &k->fs, &k->gs };
        for (unsigned i = 0; i < CPU_SEGS; i++)
                s->seg[i] = segment_of(segments[i]);
        s->ldtr = segment_of(&k->ldt);
        s->tr = segment_of(&k->tr);
        s->gdtr = (struct cpu_table){ .base = k->gdt.base, .limit = k->gdt.limit };
        s->idtr = (struct cpu_table){ .base = k->idt.base, .limit = k->idt.limit };
        s->cr0 = k->cr0;
        s->cr2 = k->cr2;
        s->cr3 = k->cr3;
        s->cr4 = k->cr4;
        s->cr8 = k->cr8;
        s->efer = k->efer;
        s->apic_base = k->apic_base;
}

static void state_to_sregs(const struct cpu_state *s, struct kvm_sregs *k)
{
        struct kvm_segment *const segments[] = { &k->es, &k->cs, &k->ss, &k->ds, &k->fs, &k->gs };
        for (unsigned i = 0; i < CPU_SEGS; i++)
                *segments[i] = kvm_segment_of(&s->seg[i]);
        k->ldt = kvm_segment_of(&s->ldtr);
        k->tr = kvm_segment_of(&s->tr);
        k->gdt.base = s->gdtr.base;
        k->gdt.limit = s->gdtr.limit;
        k->idt.base = s->idtr.base;
        k->idt.limit = s->idtr.limit;
        k->cr0 = s->cr0;
        k->cr2 = s->cr2;
        k->cr3 = s->cr3;
        k->cr4 = s->cr4;
        k->cr8 = s->cr8;
        k->efer = s->efer;
        k->apic_base = s->apic_base;
}

/* ---- floating point and vectors ---- */

static void xsave_to_state(const struct kvm_xsave *x, struct cpu_state *s)
{
        const uint8_t *area = (const uint8_t *)x->region;
        uint64_t present;
        memcpy(&present, area + XSAVE_HEADER, sizeof(present));
        memcpy(&s->x87.control, area, 2);
        memcpy(&s->x87.status, area + 2, 2);
        s->x87.tag = area[4];
        memcpy(&s->x87.opcode, area + 6, 2);
        memcpy(&s->x87.ip, area + 8, 8);
        memcpy(&s->x87.dp, area + 16, 8);
        memcpy(&s->x87.mxcsr, area + 24, 4);
        memcpy(&s->x87.mxcsr_mask, area + 28, 4);
        memcpy(s->x87.st, area + XSAVE_ST, sizeof(s->x87.st));
        for (unsigned i = 0; i < 16; i++) {
                memcpy(s->vec[i].bytes, area + XSAVE_XMM + 16 * i, 16);
                if (present & XSTATE_AVX)
                        memcpy(s->vec[i].bytes + 16, area + XSAVE_YMM_HIGH + 16 * i, 16);
                else
                        memset(s->vec[i].bytes + 16, 0, 16);
        }
}

/* Other components stay as they are there, and as present. */
static void state_to_xsave(const struct cpu_state *s, struct kvm_xsave *x)
{
        uint8_t *area = (uint8_t *)x->region;
        uint64_t present;
        memcpy(&present, area + XSAVE_HEADER, sizeof(present));
        present = (present & ~KVM_XCR0_KNOWN) | 3 | (s->xcr0 & XSTATE_AVX);
        memcpy(area + XSAVE_HEADER, &present, sizeof(present));
        memcpy(area, &s->x87.control, 2);
        memcpy(area + 2, &s->x87.status, 2);
        area[4] = s->x87.tag;
        memcpy(area + 6, &s->x87.opcode, 2);
        memcpy(area + 8, &s->x87.ip, 8);
        memcpy(area + 16, &s->x87.dp, 8);
        memcpy(area + 24, &s->x87.mxcsr, 4);
        memcpy(area + XSAVE_ST, s->x87.st, sizeof(s->x87.st));
        for (unsigned i = 0; i < 16; i++) {
                memcpy(area + XSAVE_XMM + 16 * i, s->vec[i].bytes, 16);
                memcpy(area + XSAVE_YMM_HIGH + 16 * i, s->vec[i].bytes + 16, 16);
        }
}

static uint64_t xcr0_of(const struct kvm_xcrs *xcrs)
{
        return xcrs->nr_xcrs ? xcrs->xcrs[0].value : 1;
}

static bool is_in_xsave(const struct cpu_state *s, const struct kvm_xsave *x)
{
        struct cpu_state now = { 0 };
        xsave_to_state(x, &now);
        return memcmp(&now.x87, &s->x87, sizeof(s->x87)) == 0 &&
               memcmp(now.vec, s->vec, sizeof(s->vec)) == 0;
}

/* Only what is not so already: this host's KVM may have let the guest use components that it
 * neither hands out nor takes back, and those would be lost. */
static int set_vectors(const struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
        struct kvm_xsave xsave;
        struct kvm_xcrs xcrs;
        const struct call get[] = { { KVM_GET_XSAVE, &xsave, "vector state" },
                                    { KVM_GET_XCRS, &xcrs, "XCR0" } };
        const struct call set_xcrs = { KVM_SET_XCRS, &xcrs, "XCR0" };
        const struct call set_xsave = { KVM_SET_XSAVE, &xsave, "vector state" };
        int r = call_all(v, get, ELEMENTS(get), err);
        if (r == 0 && xcr0_of(&xcrs) != s->xcr0) {
                xcrs = (struct kvm_xcrs){ .nr_xcrs = 1, .xcrs[0].value = s->xcr0 };
                r = call_all(v, &set_xcrs, 1, err);
        }
        if (r < 0 || is_in_xsave(s, &xsave))
                return r;
        state_to_xsave(s, &xsave);
        return call_all(v, &set_xsave, 1, err);
}

/* ---- all of it ---- */

static void events_to_state(const struct kvm_vcpu_events *e, const struct kvm_mp_state *mp,
                            struct cpu_state *s)
{
        s->interrupt_shadow = e->interrupt.shadow != 0;
        s->nmi_blocked = e->nmi.masked;
        s->nmi_pending = e->nmi.pending;
        s->activity = mp->mp_state == KVM_MP_STATE_HALTED          ? CPU_HALTED
                      : mp->mp_state == KVM_MP_STATE_UNINITIALIZED ? CPU_WAIT_FOR_SIPI
                      : mp->mp_state == KVM_MP_STATE_INIT_RECEIVED ? CPU_WAIT_FOR_SIPI
                                                                   : CPU_RUNNING;
}

int kvm_get_state(struct kvm_vcpu *v, struct cpu_state *s, struct err *err)
{
        struct kvm_regs regs;
        struct kvm_sregs sregs;
        struct kvm_xsave xsave;
        struct kvm_xcrs xcrs;
        struct kvm_debugregs debug;
        struct kvm_vcpu_events events;
        struct kvm_mp_state mp;
        const struct call calls[] = {
                { KVM_GET_REGS, &regs, "registers" },
                { KVM_GET_SREGS, &sregs, "system registers" },
                { KVM_GET_XSAVE, &xsave, "vector state" },
                { KVM_GET_XCRS, &xcrs, "XCR0" },
                { KVM_GET_DEBUGREGS, &debug, "debug registers" },
                { KVM_GET_VCPU_EVENTS, &events, "events" },
                { KVM_GET_MP_STATE, &mp, "activity" },
        };
        int r = call_all(v, calls, ELEMENTS(calls), err);
        if (r < 0)
                return r;
        memset(s, 0, sizeof(*s));
        regs_to_state(&regs, s);
        sregs_to_state(&sregs, s);
        xsave_to_state(&xsave, s);
        events_to_state(&events, &mp, s);
        s->xcr0 = xcr0_of(&xcrs);
        for (unsigned i = 0; i < 4; i++)
                s->dr[i] = debug.db[i];
        s->dr6 = debug.dr6;
        s->dr7 = debug.dr7;
        for (unsigned i = 0; i < ELEMENTS(msrs); i++)
                (void)get_msr(v, msrs[i].index, (uint64_t *)(void *)((char *)s + msrs[i].offset));
        uint64_t tsc = 0;
        (void)get_msr(v, MSR_TSC, &tsc);
        s->tsc_offset = tsc - __rdtsc();
        return 0;
}

int kvm_set_state(struct kvm_vcpu *v, const struct cpu_state *s, struct err *err)
{
        struct kvm_regs regs = { 0 };
        struct kvm_sregs sregs;
        struct kvm_debugregs debug = { .dr6 = s->dr6, .dr7 = s->dr7 };
        struct kvm_vcpu_events events;
        struct kvm_mp_state mp = { .mp_state = s->activity == CPU_HALTED ? KVM_MP_STATE_HALTED
                                               : s->activity == CPU_WAIT_FOR_SIPI
                                                       ? KVM_MP_STATE_UNINITIALIZED
                                                       : KVM_MP_STATE_RUNNABLE };
        state_to_regs(s, &regs);
        for (unsigned i = 0; i < 4; i++)
                debug.db[i] = s->dr[i];
        const struct call before[] = {
                { KVM_GET_SREGS, &sregs, "system registers" },
                { KVM_GET_VCPU_EVENTS, &events, "events" },
        };
        const struct call after[] = {
                { KVM_SET_SREGS, &sregs, "system registers" },
                { KVM_SET_REGS, &regs, "registers" },
                { KVM_SET_DEBUGREGS, &debug, "debug registers" },
                { KVM_SET_VCPU_EVENTS, &events, "events" },
                { KVM_SET_MP_STATE, &mp, "activity" },
        };
        int r = call_all(v, before, ELEMENTS(before), err);
        if (r < 0)
                return r;
        state_to_sregs(s, &sregs);
        events.interrupt.shadow = s->interrupt_shadow ? KVM_X86_SHADOW_INT_STI : 0;
        events.nmi.masked = s->nmi_blocked;
        events.nmi.pending = s->nmi_pending > 0;
        events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
        r = call_all(v, after, ELEMENTS(after), err);
        if (r == 0)
                r = set_vectors(v, s, err);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < ELEMENTS(msrs); i++)
                (void)set_msr(v, msrs[i].index,
                              *(const uint64_t *)(const void *)((const char *)s + msrs[i].offset));
        (void)set_msr(v, MSR_TSC, __rdtsc() + s->tsc_offset);
        return 0;
}

static int get_lapic(const struct kvm_vcpu *v, struct kvm_lapic_state *lapic,
                     struct kvm_sregs *sregs, struct err *err)
{
        const struct call calls[] = { { KVM_GET_LAPIC, lapic, "local APIC" },
                                      { KVM_GET_SREGS, sregs, "system registers" } };
        return call_all(v, calls, ELEMENTS(calls), err);
}

/* An interrupt that KVM has taken from the APIC, and not delivered when its vCPU was kicked, waits
 * in the APIC again: no other provider has a place between the two. */
static int take_back(const struct kvm_vcpu *v, struct kvm_lapic_state *lapic, struct err *err)
{
        struct kvm_vcpu_events events;
        const struct call call = { KVM_GET_VCPU_EVENTS, &events, "events" };
        int r = call_all(v, &call, 1, err);
        if (r < 0 || !events.interrupt.injected || events.interrupt.soft)
                return r;
        unsigned vector = events.interrupt.nr, word = 16 * (vector / 32);
        uint32_t bit = 1u << vector % 32, in_service, requested;
        memcpy(&in_service, lapic->regs + APIC_ISR + word, 4);
        memcpy(&requested, lapic->regs + APIC_IRR + word, 4);
        if (!(in_service & bit))
                return err_plain(err, EAGAIN,
                                 "vCPU %u is about to take an interrupt of the PICs; let the "
                                 "machine go on for a moment",
                                 v->vcpu->index);
        in_service &= ~bit;
        requested |= bit;
        memcpy(lapic->regs + APIC_ISR + word, &in_service, 4);
        memcpy(lapic->regs + APIC_IRR + word, &requested, 4);
        return 0;
}

int kvm_get_apic(struct kvm_vcpu *v, struct vcpu_apic *ret, struct err *err)
{
        struct kvm_lapic_state lapic;
        struct kvm_sregs sregs;
        int r = get_lapic(v, &lapic, &sregs, err);
        if (r < 0)
                return r;
        memset(ret, 0, sizeof(*ret));
        r = take_back(v, &lapic, err);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < KVM_APIC_REG_SIZE / 16; i++)
                memcpy(&ret->registers[i], lapic.regs + 16 * i, 4);
        ret->base = sregs.apic_base;
        (void)get_msr(v, MSR_TSC_DEADLINE, &ret->tsc_deadline);
        return 0;
}

int kvm_set_apic(struct kvm_vcpu *v, const struct vcpu_apic *apic, struct err *err)
{
        struct kvm_lapic_state lapic;
        struct kvm_sregs sregs;
        int r = get_lapic(v, &lapic, &sregs, err);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < KVM_APIC_REG_SIZE / 16; i++)
                if (16 * i != APIC_ID && 16 * i != APIC_VERSION) /* which are as they are */
                        memcpy(lapic.regs + 16 * i, &apic->registers[i], 4);
        sregs.apic_base = apic->base;
        const struct call calls[] = { { KVM_SET_SREGS, &sregs, "system registers" },
                                      { KVM_SET_LAPIC, &lapic, "local APIC" } };
        r = call_all(v, calls, ELEMENTS(calls), err);
        if (r == 0 && apic->tsc_deadline)
                (void)set_msr(v, MSR_TSC_DEADLINE, apic->tsc_deadline);
        return r;
}

/* MSRs of KVM's own, as members of struct vcpu_paravirt. */
static const struct {
        uint32_t index;
        uint16_t offset;
} paravirt[] = {
        { 0x4b564d01, offsetof(struct vcpu_paravirt, system_time) },
        { 0x4b564d03, offsetof(struct vcpu_paravirt, steal_time) },
        { 0x4b564d06, offsetof(struct vcpu_paravirt, async_vector) },
        { 0x4b564d02, offsetof(struct vcpu_paravirt, async_faults) },
        { 0x4b564d04, offsetof(struct vcpu_paravirt, end_of_interrupt) },
};

int kvm_get_paravirt(struct vcpu *vcpu, struct vcpu_paravirt *ret, struct err *err)
{
        (void)err;
        *ret = (struct vcpu_paravirt){ 0 };
        for (unsigned i = 0; i < ELEMENTS(paravirt); i++)
                (void)get_msr(vcpu->provider, paravirt[i].index,
                              (uint64_t *)(void *)((char *)ret + paravirt[i].offset));
        return 0;
}

int kvm_set_paravirt(struct vcpu *vcpu, const struct vcpu_paravirt *wanted, struct err *err)
{
        for (unsigned i = 0; i < ELEMENTS(paravirt); i++) {
                uint64_t value;
                memcpy(&value, (const char *)wanted + paravirt[i].offset, sizeof(value));
                if (value && set_msr(vcpu->provider, paravirt[i].index, value) < 0)
                        return err_plain(err, ENOTSUP,
                                         "vCPU %u: this host's KVM does not take 0x%llx in MSR "
                                         "0x%x",
                                         vcpu->index, (unsigned long long)value, paravirt[i].index);
        }
        return 0;
}
