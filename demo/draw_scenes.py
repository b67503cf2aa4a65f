"""Everything that is no page: laid tables, rooms, streets, landscapes, objects, charts."""

import numpy as np
from draw_charts import paint_chart
from draw_food import paint_table
from draw_objects import paint_product
from draw_outdoors import paint_facade, paint_landscape, paint_street
from draw_rooms import paint_room
from lettering import pick
from PIL import Image
from surfaces import Size

SCENE_PAINTERS = (
    paint_table,
    paint_table,
    paint_room,
    paint_facade,
    paint_street,
    paint_landscape,
    paint_product,
    paint_chart,
)


def paint_scene(size: Size, rng: np.random.Generator) -> Image.Image:
    """A scene of any of these kinds."""
    return pick(rng, SCENE_PAINTERS)(size, rng)
