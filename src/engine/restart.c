#include "engine/restart.h"

#include "base/str.h"

bool restart_wanted(const struct restart_policy *policy, int exit_code, bool stopped_by_user,
                    unsigned restarts)
{
        if (stopped_by_user)
                return false;
        if (streq(policy->name, "always") || streq(policy->name, "unless-stopped"))
                return true;
        return streq(policy->name, "on-failure") && exit_code != 0 &&
               (policy->maximum_retry_count == 0 ||
                restarts < (uint64_t)policy->maximum_retry_count);
}

bool restart_at_boot(const struct restart_policy *policy, int exit_code, bool stopped_by_user,
                     bool was_running)
{
        if (streq(policy->name, "always"))
                return true;
        if (streq(policy->name, "unless-stopped"))
                return !stopped_by_user;
        return streq(policy->name, "on-failure") && was_running && !stopped_by_user &&
               exit_code != 0;
}

int64_t restart_delay(int64_t previous_ns, int64_t run_ns)
{
        if (previous_ns == 0 || run_ns >= RESTART_RESET_NS)
                return RESTART_DELAY_MIN_NS;
        return previous_ns * 2 > RESTART_DELAY_MAX_NS ? RESTART_DELAY_MAX_NS : previous_ns * 2;
}
