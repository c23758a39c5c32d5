/* The inside of the IOMMU; see vtd.h. All functions want the lock held, where not said otherwise.
 */
#pragma once

#include "vmm/vtd/vtd.h"

/* Global command and status (11.4.4). */
#define VTD_TRANSLATE     (1u << 31)
#define VTD_SET_ROOT      (1u << 30)
#define VTD_QUEUE         (1u << 26)
#define VTD_REMAP         (1u << 25)
#define VTD_SET_REMAP     (1u << 24)
#define VTD_COMPATIBILITY (1u << 23) /* messages of the old format pass */

/* Fault status (11.4.9). */
#define VTD_FAULT_OVERFLOW    (1u << 0)
#define VTD_FAULT_PENDING     (1u << 1)
#define VTD_FAULT_QUEUE_ERROR (1u << 4)

/* Fault reasons (7.2). */
enum vtd_fault {
        VTD_FAULT_NO_ROOT = 1,
        VTD_FAULT_NO_CONTEXT = 2,
        VTD_FAULT_CONTEXT = 3, /* a kind that there is not */
        VTD_FAULT_BEYOND = 4,  /* the address is too wide */
        VTD_FAULT_WRITE = 5,
        VTD_FAULT_READ = 6,
        VTD_FAULT_TABLE_ADDRESS = 7,
        VTD_FAULT_ROOT_ADDRESS = 8,
        VTD_FAULT_CONTEXT_ADDRESS = 9,
        VTD_FAULT_ROOT_RESERVED = 0xa,
        VTD_FAULT_CONTEXT_RESERVED = 0xb,
        VTD_FAULT_ENTRY_RESERVED = 0xc,
        VTD_FAULT_INDEX = 0x21,
        VTD_FAULT_NO_ENTRY = 0x22,
        VTD_FAULT_REMAP_ADDRESS = 0x23,
        VTD_FAULT_REMAP_RESERVED = 0x24,
        VTD_FAULT_OLD_FORMAT = 0x25,
        VTD_FAULT_SOURCE = 0x26,
};

#define VTD_IOTLB     512u
#define VTD_PAGE      4096ull
#define VTD_PAGE_MASK (VTD_PAGE - 1)
/* Guest physical addresses have 46 bits, a device's own 48 at most. */
#define VTD_ADDRESS 0x00003ffffffff000ull
#define VTD_BEYOND  0x000fc00000000000ull

/* Capabilities: 65,536 domains, 3 and 4 levels (SAGAW), 48 bits (MGAW), large pages of 2 MiB and
 * 1 GiB, invalidation by page, of up to 2^18 of them, the fault record at 0x220. */
#define VTD_MASK_MAX 18u
#define VTD_FAULT_AT 0x220ull
#define VTD_IOTLB_AT 0xf0ull
#define VTD_CAPABILITY                                                                             \
        (6ull | 6ull << 8 | 47ull << 16 | VTD_FAULT_AT / 16 << 24 | 3ull << 34 | 1ull << 39 |      \
         (uint64_t)VTD_MASK_MAX << 48)
/* Walks are coherent; a queue, interrupt remapping, passing through; masks of indices do nothing.
 */
#define VTD_EXTENDED                                                                               \
        (1ull | 1ull << 1 | 1ull << 3 | 1ull << 6 | VTD_IOTLB_AT / 16 << 8 | 15ull << 20)
#define VTD_VERSION 0x10u

/* A page of 4 KiB that a device may reach. */
struct vtd_mapping {
        uint64_t page;        /* of the device's address | 1; 0: nothing */
        uint64_t to;          /* guest physical page */
        uint64_t first, last; /* bytes of the page of any size that it is a part of */
        uint16_t source, domain;
        bool read, write;
};

/* A message of the IOMMU itself: control with mask (31) and pending (30), data, address. */
struct vtd_event {
        uint32_t control, data, address, address_high;
        bool due; /* to be sent by the loop's thread */
};

struct vtd {
        struct device device;
        struct machine *machine;
        struct iommu iommu;
        struct irq_remap remap;
        pthread_mutex_t lock;

        uint32_t version, command, status, fault_status, completion_status, protected_memory;
        uint64_t capability, extended;
        uint64_t root_register, context_command, remap_register;
        uint64_t queue_head, queue_tail, queue_address;
        uint64_t iotlb_address, iotlb_command;
        uint64_t record[2];
        struct vtd_event fault_event, completion_event;
        bool event_posted;

        uint64_t root, remap_table; /* as latched by commands */
        struct vtd_mapping iotlb[VTD_IOTLB];
};

/* Sixteen bytes of a table. False: no memory. */
bool vtd_entry_read(const struct vtd *v, uint64_t at, uint64_t ret[2]);

/* translate.c; takes the lock. */
bool vtd_translate(void *arg, uint16_t source, uint64_t address, bool write,
                   struct iommu_page *ret);
void vtd_forget_all(struct vtd *v);
void vtd_forget_domain(struct vtd *v, uint16_t domain);
/* 2^`mask` pages; their place is rounded down to that. */
void vtd_forget_pages(struct vtd *v, uint16_t domain, uint64_t address, unsigned mask);

/* invalidate.c: carries out what the queue has. */
void vtd_run_queue(struct vtd *v);

/* interrupt.c; takes the lock. */
bool vtd_remap(void *arg, int source, uint64_t *address, uint32_t *data);

/* fault.c */
void vtd_fault(struct vtd *v, uint16_t source, enum vtd_fault reason, uint64_t information,
               bool read);
void vtd_fault_status(struct vtd *v, uint32_t bits); /* beside those of records */
void vtd_completed(struct vtd *v);                   /* a wait descriptor asks for a message */
/* The record was cleared, bits of a status, a mask. */
void vtd_faults_changed(struct vtd *v);
void vtd_completion_changed(struct vtd *v);
