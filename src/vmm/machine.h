/* A machine: memory, two buses, an interrupt fabric, processors and devices.
 *
 * It is built in this order: machine_create() (memory and CPU provider), devices
 * (each registers itself on the buses and in `devices`), the loader, then
 * machine_start() makes the vCPU threads, which machine_resume() lets go. It ends by machine_end(),
 * which any thread may call; the loop then returns and machine_destroy() joins the threads and
 * frees the devices in reverse order.
 *
 * Threads: one event loop, on the thread that created the machine, serves
 * devices, timers and host descriptors; one thread per vCPU. Lock order: a
 * device's own mutex, then the interrupt fabric's. Nothing else is held across
 * calls between them.
 *
 * Limits: MACHINE_VCPUS processors, memory as the host has, one PCI bus.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/list.h"
#include "loop/loop.h"
#include "vmm/bus.h"
#include "vmm/dma.h"
#include "vmm/irq.h"
#include "vmm/memory.h"
#include "vmm/vcpu.h"

#define MACHINE_VCPUS 64

struct pci;
struct virtio_mmio_places;
struct state_ops;

/* The part of a device that the machine knows; embedded in each device. */
struct device {
        struct list node;
        const char *name;
        void (*destroy)(struct device *device);
        /* What it did so far; NULL where nothing is counted. Any thread's. */
        void (*counters)(struct device *device, counter_fn *take, void *arg);
        const struct state_ops *state; /* how it is saved (snapshot/state.h); NULL: it cannot be */
};

enum machine_end_kind {
        MACHINE_RUNNING,
        MACHINE_POWERED_OFF, /* ACPI S5 */
        MACHINE_RESET,       /* i8042, ACPI reset register */
        MACHINE_DEBUG_EXIT,  /* the test port; `code` is what was written */
        MACHINE_PANICKED,    /* pvpanic */
        MACHINE_CRASHED,     /* triple fault */
        MACHINE_FAILED,      /* we cannot go on: `err` */
        MACHINE_STOPPED,     /* asked from outside */
};

struct machine_outcome {
        enum machine_end_kind kind;
        unsigned code;
        struct err err;
};

struct machine {
        struct loop *loop;
        const struct vcpu_ops *cpu;
        void *provider; /* the CPU provider's own */
        struct memory memory;
        struct bus pio, mmio;
        struct irq irq;
        const struct iommu *iommu;              /* NULL: devices see guest physical memory */
        struct pci *pci;                        /* NULL without */
        struct virtio_mmio_places *mmio_places; /* NULL: virtio devices are on PCI */
        struct list devices;
        struct vcpu *vcpus;
        unsigned vcpus_length;
        unsigned vcpus_wanted;         /* what vcpus_length will be when it is built */
        const struct cpu_model *model; /* what vCPUs look like; NULL: as much as works */
        uint64_t tsc_khz;              /* of the guest's TSC */

        pthread_mutex_t lock; /* of what follows */
        pthread_cond_t resumed;
        struct machine_outcome outcome;
        atomic_bool stopping;
        atomic_uint pauses; /* machine_pause() without its machine_resume() */
        /* Told of VCPU_DEBUG on the vCPU's thread, which stands afterwards until somebody
         * clears vcpu->held. NULL without a debugger. */
        void (*stopped)(void *arg, struct vcpu *vcpu);
        void *stopped_arg;
        atomic_bool debugger_holds; /* one of the pauses is a debugger's */
};

struct machine_options {
        const struct vcpu_ops *cpu;
        const struct cpu_model *model; /* NULL: none */
        unsigned vcpus;
        uint64_t memory_bytes;
        const char *memory_file; /* see memory_init() */
        const int *memory_fd;    /* see memory_overlay(); NULL: none */
};
int machine_create(struct loop *loop, const struct machine_options *options, struct machine **ret,
                   struct err *err);
void machine_destroy(struct machine *machine);

/* The machine owns the device from here on. */
void machine_add_device(struct machine *machine, struct device *device, const char *name,
                        void (*destroy)(struct device *device));

/* Destroys what was added last, or any other; no vCPU is inside of it. */
void machine_remove_device(struct machine *machine, struct device *device);
/* The one that was added last; NULL where there is none. */
struct device *machine_last_device(struct machine *machine);

/* Which of those of its name it is, in the order of building. */
unsigned machine_device_number(const struct machine *machine, const struct device *device);

/* Makes the vCPUs' threads. They stand until machine_resume(). */
int machine_start(struct machine *machine, struct err *err);

/* THREAD-SAFE. The first caller's reason counts. `err` may be NULL. */
void machine_end(struct machine *machine, enum machine_end_kind kind, unsigned code,
                 const struct err *err);

/* Stops all vCPUs between instructions and returns when they stand (or the machine ends).
 * They go on when everybody who paused it has called machine_resume(). Not on a vCPU's
 * thread. */
void machine_pause(struct machine *machine);
void machine_resume(struct machine *machine);
