/* Memory that an idle guest has in common with others of its kind.
 *
 * Theory of operation. Machines that boot the same kernel hold largely the same pages at
 * the same guest physical addresses: the kernel's text as it patched itself, its
 * initialisation, the description of pages nobody uses. A *template* is a file with the
 * memory of such a machine, booted by nobody but us (src/guest/template.c). When a guest has
 * idled for some seconds, its pages are compared with the template's:
 *
 *     the same     the template's page is mapped in its place, private: the host holds it
 *                  once for all machines, and a write makes a copy again
 *     zero         goes back to the host, which has zeros for whoever looks
 *     different    stays
 *
 * Only what is the same byte for byte is replaced, so that a template cannot change what a
 * guest sees, whatever is in it. Its file must not change while a machine uses it. Guests can
 * tell by the time of a write whether a page was shared, and so whether they have it in common
 * with a file that holds nothing of any other guest.
 *
 * For the time of a comparison (some 20 ms) vCPUs and devices stand still. The next one comes
 * when the machine worked and idles again.
 *
 * Threads: the loop's.
 */
#pragma once

#include "vmm/machine.h"

/* What one comparison came to, in bytes. */
struct share_sums {
        uint64_t shared, zero;
};

/* Has the machine's memory compared with the file `path` from now on. An empty file is no
 * template, which is no error. The machine frees it. */
int share_create(struct machine *machine, const char *path, struct err *err);

/* One comparison, while nobody else uses the memory. Mappings move from `template`, which is
 * `size_bytes` of a file, to the memory: no page is compared twice. What it fails at leaves
 * a hole in the memory: the machine cannot go on. */
int share_pages(struct memory *memory, uint8_t *template, uint64_t size_bytes,
                struct share_sums *ret, struct err *err);
