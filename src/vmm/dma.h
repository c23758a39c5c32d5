/* How a device reaches guest memory: at guest physical addresses, or through the machine's
 * IOMMU, where the guest says what a device's addresses mean.
 *
 * What dma_at() hands out is good for the request that it was asked for: a translation is not
 * taken back under a request that runs.
 *
 * Threads: any; an IOMMU locks for itself, innermost but for the loop's queue.
 */
#pragma once

#include "vmm/memory.h"

/* A page of a device's address space. */
struct iommu_page {
        uint64_t at;         /* guest physical, of the byte that was asked for */
        uint64_t size_bytes; /* from there to the end of the page */
};

struct iommu {
        /* False: the guest allows it not; it was told. */
        bool (*translate)(void *arg, uint16_t source, uint64_t address, bool write,
                          struct iommu_page *ret);
        void *arg;
};

struct dma {
        const struct memory *memory;
        const struct iommu *iommu; /* NULL: addresses are guest physical */
        uint16_t source;           /* requester id: bus, device, function */
};

/* What is contiguous in our memory. */
struct dma_part {
        uint8_t *host;
        struct gpa at;
        uint64_t size_bytes;
};

/* An IOMMU may cut even contiguous memory after so many bytes. */
#define DMA_PART_MAX (1ull << 20)

/* The bytes from `address` on: at least one, at most `size_bytes`; all of them where there is no
 * IOMMU. False where a device may not go. */
bool dma_at(const struct dma *dma, uint64_t address, uint64_t size_bytes, bool write,
            struct dma_part *ret);

/* Copies; -EFAULT where a part is not to be had, what is before it may be transferred. */
int dma_read(const struct dma *dma, uint64_t address, void *bytes, size_t size_bytes);
int dma_write(const struct dma *dma, uint64_t address, const void *bytes, size_t size_bytes);
