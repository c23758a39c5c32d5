#include "vmm/dma.h"

#include <errno.h>
#include <string.h>

static bool straight(const struct dma *d, uint64_t address, uint64_t size_bytes,
                     struct dma_part *ret)
{
        uint8_t *host = memory_at(d->memory, gpa(address), size_bytes);
        if (!host)
                return false;
        *ret = (struct dma_part){ host, gpa(address), size_bytes };
        return true;
}

/* What is left of the page at `address`. */
static bool page_at(const struct dma *d, uint64_t address, uint64_t size_bytes, bool write,
                    struct dma_part *ret)
{
        struct iommu_page page;
        if (!d->iommu->translate(d->iommu->arg, d->source, address, write, &page))
                return false;
        return straight(d, page.at, page.size_bytes < size_bytes ? page.size_bytes : size_bytes,
                        ret);
}

bool dma_at(const struct dma *d, uint64_t address, uint64_t size_bytes, bool write,
            struct dma_part *ret)
{
        if (!d->iommu)
                return straight(d, address, size_bytes, ret);
        if (!size_bytes || address + (size_bytes - 1) < address ||
            !page_at(d, address, size_bytes, write, ret))
                return false;
        while (ret->size_bytes < size_bytes && ret->size_bytes < DMA_PART_MAX) {
                struct dma_part next;
                if (!page_at(d, address + ret->size_bytes, size_bytes - ret->size_bytes, write,
                             &next) ||
                    next.host != ret->host + ret->size_bytes ||
                    next.at.value != ret->at.value + ret->size_bytes)
                        break;
                ret->size_bytes += next.size_bytes;
        }
        return true;
}

int dma_read(const struct dma *d, uint64_t address, void *bytes, size_t size_bytes)
{
        uint8_t *to = bytes;
        while (size_bytes) {
                struct dma_part part;
                if (!dma_at(d, address, size_bytes, false, &part))
                        return -EFAULT;
                memcpy(to, part.host, part.size_bytes);
                to += part.size_bytes;
                address += part.size_bytes;
                size_bytes -= part.size_bytes;
        }
        return 0;
}

int dma_write(const struct dma *d, uint64_t address, const void *bytes, size_t size_bytes)
{
        const uint8_t *from = bytes;
        while (size_bytes) {
                struct dma_part part;
                if (!dma_at(d, address, size_bytes, true, &part))
                        return -EFAULT;
                memcpy(part.host, from, part.size_bytes);
                memory_touched(d->memory, part.at, part.size_bytes);
                from += part.size_bytes;
                address += part.size_bytes;
                size_bytes -= part.size_bytes;
        }
        return 0;
}
