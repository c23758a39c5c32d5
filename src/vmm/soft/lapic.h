/* A local APIC: xAPIC and x2APIC, timer with TSC deadline.
 *
 * A pure model: no lock, no clock of its own. Its owner (soft/fabric.c) holds
 * the fabric's lock around every call, passes the time, and does what
 * lapic_write() says is to be done outside: sending an IPI, telling the IOAPIC
 * of an EOI. Register numbers are xAPIC offsets divided by 16, which are also
 * the low bits of the x2APIC MSRs.
 *
 * Source: Intel SDM volume 3, chapter "Advanced Programmable Interrupt
 * Controller". Not modelled: CMCI, performance and thermal entries are stored
 * but never fire; focus processor; arbitration.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum lapic_register {
        LAPIC_ID = 0x02,
        LAPIC_VERSION = 0x03,
        LAPIC_TPR = 0x08,
        LAPIC_PPR = 0x0a,
        LAPIC_EOI = 0x0b,
        LAPIC_LDR = 0x0d,
        LAPIC_DFR = 0x0e,
        LAPIC_SVR = 0x0f,
        LAPIC_ISR = 0x10,
        LAPIC_TMR = 0x18,
        LAPIC_IRR = 0x20,
        LAPIC_ESR = 0x28,
        LAPIC_LVT_CMCI = 0x2f,
        LAPIC_ICR = 0x30,
        LAPIC_ICR_HIGH = 0x31,
        LAPIC_LVT_TIMER = 0x32,
        LAPIC_LVT_LINT0 = 0x35,
        LAPIC_LVT_LINT1 = 0x36,
        LAPIC_LVT_ERROR = 0x37,
        LAPIC_TIMER_INITIAL = 0x38,
        LAPIC_TIMER_CURRENT = 0x39,
        LAPIC_TIMER_DIVIDE = 0x3e,
        LAPIC_SELF_IPI = 0x3f,
};

#define LAPIC_BASE_BSP    0x100ull
#define LAPIC_BASE_X2     0x400ull
#define LAPIC_BASE_ENABLE 0x800ull

struct lapic {
        uint32_t id;
        uint64_t base;      /* IA32_APIC_BASE */
        uint32_t regs[64];  /* as stored; ISR, TMR, IRR in place */
        uint64_t icr;       /* x2APIC form: destination in the high half */
        int64_t started_ns; /* of the running count */
        int64_t expiry_ns;  /* of the timer; 0 is none */
        uint64_t tsc_deadline;
};

/* What a register write asks of the rest of the machine. */
struct lapic_request {
        enum { LAPIC_NOTHING, LAPIC_SEND, LAPIC_EOI_LEVEL } kind;
        uint64_t icr;   /* LAPIC_SEND; destination in the high half, in the mode's own form */
        uint8_t vector; /* LAPIC_EOI_LEVEL */
};

void lapic_reset(struct lapic *l, uint32_t id);
/* INIT: as reset, but the identity, base and thereby the mode stay. */
void lapic_init(struct lapic *l);

static inline bool lapic_x2(const struct lapic *l)
{
        return l->base & LAPIC_BASE_X2;
}

/* xAPIC register page; `offset` is that of an aligned 32-bit register. */
uint32_t lapic_read(const struct lapic *l, unsigned reg, int64_t now_ns);
struct lapic_request lapic_write(struct lapic *l, unsigned reg, uint32_t value, int64_t now_ns);

/* x2APIC MSRs 0x800 + reg. False is #GP. */
bool lapic_msr_read(const struct lapic *l, unsigned reg, int64_t now_ns, uint64_t *ret_value);
bool lapic_msr_write(struct lapic *l, unsigned reg, uint64_t value, int64_t now_ns,
                     struct lapic_request *ret);
/* IA32_APIC_BASE. False is #GP (a transition the architecture forbids). */
bool lapic_set_base(struct lapic *l, uint64_t value);
/* IA32_TSC_DEADLINE, already converted; ignored in other timer modes. */
void lapic_set_deadline(struct lapic *l, uint64_t tsc, int64_t expiry_ns);

/* Accepts a fixed interrupt. */
void lapic_accept(struct lapic *l, uint8_t vector, bool level);
/* Does what is due at `now_ns`. */
void lapic_expire(struct lapic *l, int64_t now_ns);
/* Whether the processor should be told; the vector by lapic_acknowledge(), which
 * moves it in service, or -1. */
bool lapic_pending(const struct lapic *l);
int lapic_acknowledge(struct lapic *l);
/* Whether the PIC's output reaches the processor through LINT0. */
bool lapic_takes_pic(const struct lapic *l);
/* Whether a message to `destination` (8 bits, or 32 in x2APIC form) means us. */
bool lapic_addressed(const struct lapic *l, uint32_t destination, bool logical, bool wide);
