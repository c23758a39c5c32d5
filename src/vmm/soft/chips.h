/* The interrupt chips outside of the processors, with their ports and page on the buses: two
 * PICs and an IOAPIC, under one lock. Used by the software provider, and by KVM where the
 * chips are split: local APICs in the kernel, these here.
 *
 * `deliver` of the IOAPIC and both functions are called with the lock held.
 */
#pragma once

#include <pthread.h>

#include "vmm/machine.h"
#include "vmm/soft/ioapic.h"
#include "vmm/soft/pic.h"

struct chips {
        pthread_mutex_t lock;
        struct pics pics;
        struct ioapic ioapic;
        void (*pic_changed)(void *arg); /* whether something waits may be other than before */
        void (*routed)(void *arg);      /* a register of the IOAPIC was written; may be NULL */
        void *arg;
};

/* The chips as they are saved: registers and lines. */
struct chips_state {
        uint64_t entries[IOAPIC_PINS];
        uint32_t lines, select, id;
        struct pics pics;
};
void chips_get(struct chips *chips, struct chips_state *ret);
/* Vectors that wait go to processors with the next change. */
void chips_set(struct chips *chips, const struct chips_state *state);

/* Functions and ioapic.deliver have been filled in. */
int chips_init(struct chips *chips, struct machine *machine, struct err *err);
void chips_finish(struct chips *chips);
/* A line, as devices drive it. */
void chips_line(struct chips *chips, unsigned gsi, bool raised);
