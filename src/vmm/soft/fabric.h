/* The interrupt fabric of the software provider: PICs, IOAPIC and one local APIC
 * per vCPU under one lock, with their ports and pages on the buses.
 *
 * A vCPU is told through cpu_set_irq() and friends, and woken where it sleeps.
 * Thread-safe; the lock is innermost: nothing is called out under it but the
 * CPU's atomic inputs and the wake-up of a vCPU.
 */
#pragma once

#include <pthread.h>

#include "vmm/machine.h"
#include "vmm/soft/chips.h"
#include "vmm/soft/lapic.h"

struct fabric_port {
        struct cpu *cpu;
        void (*wake)(void *arg);
        void *arg;
        struct lapic lapic;
};

struct fabric {
        struct chips chips; /* whose lock is that of all */
        struct fabric_port ports[MACHINE_VCPUS];
        unsigned length;
};

int fabric_init(struct fabric *f, struct machine *machine, struct err *err);
void fabric_finish(struct fabric *f);
void fabric_connect(struct fabric *f, unsigned index, struct cpu *cpu, void (*wake)(void *arg),
                    void *arg);

/* For the bus callbacks of vCPU `index`, on its thread. */
int fabric_acknowledge(struct fabric *f, unsigned index);
uint64_t fabric_page_read(struct fabric *f, unsigned index, uint64_t offset, unsigned size_bytes);
void fabric_page_write(struct fabric *f, unsigned index, uint64_t offset, uint32_t value);
/* 1 done, 0 not ours, -1 #GP */
int fabric_msr_read(struct fabric *f, unsigned index, uint32_t msr, uint64_t *ret_value);
int fabric_msr_write(struct fabric *f, unsigned index, uint32_t msr, uint64_t value);
/* An interrupt to the vCPUs of identity `first` + i for each set bit i; returns how many. */
unsigned fabric_send(struct fabric *f, const uint64_t bits[2], uint32_t first, unsigned mode,
                     uint8_t vector);
/* Its local APIC was loaded: whether something waits may be other than before. */
void fabric_loaded(struct fabric *f, unsigned index);
void fabric_set_deadline(struct fabric *f, unsigned index, uint64_t tsc, int64_t expiry_ns);
void fabric_set_tpr(struct fabric *f, unsigned index, uint8_t cr8);
uint8_t fabric_tpr(struct fabric *f, unsigned index);
/* Fires the timer where due; returns the next expiry, 0 for none. */
int64_t fabric_timer(struct fabric *f, unsigned index, int64_t now_ns);
