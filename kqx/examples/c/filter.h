/*-
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The number of the kqx filters: the number from the module, or the default.
 */
#include <sys/types.h>
#include <sys/sysctl.h>

#include <sys/kqx.h>

static inline short
kqx_filter(void)
{
	size_t len;
	int filter;

	len = sizeof(filter);
	if (sysctlbyname("kern.kqx.filter", &filter, &len, NULL, 0) != 0)
		return (EVFILT_KQX);
	return ((short)filter);
}
