/* virtio memory balloon (VIRTIO 1.2, section 5.5): memory of the guest that goes back to
 * the host.
 *
 * Two ways: the balloon itself, whose size somebody asks for and the guest brings
 * about, deflating by itself before it runs out of memory; and free-page reporting, by
 * which the guest says without being asked what it does not use. Both punch holes into
 * the machine's memory: a page that the guest takes back is zero.
 *
 * Statistics come from the guest when asked for, and are its word only.
 */
#pragma once

#include "vmm/machine.h"

struct balloon;

enum balloon_stat {
        BALLOON_SWAPPED_IN, /* bytes, as all but the faults */
        BALLOON_SWAPPED_OUT,
        BALLOON_MAJOR_FAULTS,
        BALLOON_MINOR_FAULTS,
        BALLOON_FREE,
        BALLOON_TOTAL,
        BALLOON_AVAILABLE,
        BALLOON_CACHES,
        BALLOON_STATS,
};

struct balloon_view {
        uint64_t target_bytes, actual_bytes;
        uint64_t reported_bytes; /* free pages given back so far */
        uint64_t stats[BALLOON_STATS];
        bool has_stats; /* the guest told some */
};

int virtio_balloon_create(struct machine *machine, struct balloon **ret, struct err *err);
/* THREAD-SAFE. Rounded down to pages; -EINVAL where it is more than the machine has. */
int balloon_set_target(struct balloon *balloon, uint64_t bytes);
/* THREAD-SAFE. Asks the guest for statistics, and tells what is known by now. */
void balloon_view(struct balloon *balloon, struct balloon_view *ret);
